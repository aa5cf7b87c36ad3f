//! Debian's Erlang and `RabbitMQ`, run from the folder that they were unpacked into.
//!
//! Erlang has the folder that it is installed in built into `erl`, and starts its helpers by their
//! paths. So `erl` is replaced, and the helpers are started by scripts that stand in their places.

use std::path::Path;

use tokio::process::Command;

use crate::error::{Error, Result};
use crate::kit::libraries::{Libraries, names, write};
use crate::kit::tool::Tools;

const ERLANG: &str = "usr/lib/erlang";
const RABBIT: &str = "usr/lib/rabbitmq/lib";
/// The programs of the runtime's own folder that are started by their paths.
const HELPERS: [&str; 5] = ["beam.smp", "erlexec", "erl_child_setup", "inet_gethost", "epmd"];

pub(crate) async fn install(tools: &Tools, unpacked: &Path, bin: &Path) -> Result<()> {
    let libraries = Libraries::find(tools, unpacked)?;
    let erlang = unpacked.join(ERLANG);
    let runtime = format!("{ERLANG}/{}/bin", only(tools, &erlang, "erts-")?);
    let lib = erlang.join("lib");
    let monitors = lib.join(only(tools, &lib, "os_mon-")?).join("priv/bin");
    for helper in HELPERS {
        libraries.start_in_place(tools, &unpacked.join(&runtime).join(helper)).await?;
    }
    for monitor in names(&monitors)? {
        libraries.start_in_place(tools, &monitors.join(monitor)).await?;
    }
    let crypto = lib.join(only(tools, &lib, "crypto-")?).join("priv/lib/crypto.so");
    libraries.check(tools, &crypto).await?;

    // `RabbitMQ` 4 starts a second machine, by the path below Erlang's root.
    let erl = format!(
        "root=$(cd \"$root\" && pwd) || exit\n\
         export ROOTDIR=\"$root/{ERLANG}\" BINDIR=\"$root/{runtime}\" EMU=beam PROGNAME=erl\n\
         exec \"$BINDIR/erlexec\" \"$@\"\n"
    );
    for folder in [bin, &erlang.join("bin"), &unpacked.join(&runtime)] {
        // A link in its place would be written through.
        let _ = std::fs::remove_file(folder.join("erl"));
        write(&folder.join("erl"), unpacked, &erl)?;
    }
    let emulator = "export ESCRIPT_EMULATOR=\"${0%/*}/erl\"\n";
    libraries.script(&bin.join("escript"), &erlang.join("bin/escript"), emulator)?;
    write(&bin.join("epmd"), unpacked, &format!("exec \"$root/{runtime}/epmd\" \"$@\"\n"))?;

    let rabbit = only(tools, &unpacked.join(RABBIT), "rabbitmq_server-")?;
    for program in ["rabbitmq-server", "rabbitmqctl"] {
        let text = format!(
            "export PATH=\"$(cd \"${{0%/*}}\" && pwd):$PATH\"\n\
             exec \"$root/{RABBIT}/{rabbit}/sbin/{program}\" \"$@\"\n"
        );
        super::name(tools, &unpacked.join(RABBIT).join(&rabbit).join("sbin").join(program))?;
        write(&bin.join(program), unpacked, &text)?;
    }
    // Not by `rabbitmqctl`, which leaves a port mapper running behind it.
    let mut erl = Command::new(bin.join("erl"));
    erl.args(["-noinput", "-eval", "crypto:strong_rand_bytes(1), halt(0)."]);
    tools.run(&mut erl).await.map(|_| ())
}

/// The one name in `folder` that begins like this; the rest of it is a version.
fn only(tools: &Tools, folder: &Path, begin: &str) -> Result<String> {
    let found = names(folder)?.into_iter().find(|name| name.starts_with(begin));
    found.ok_or_else(|| Error::NoProgram {
        broker: tools.broker.clone(),
        program: format!("{}/{begin}*", folder.display()),
    })
}
