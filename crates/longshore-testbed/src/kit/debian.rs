//! Programs from Debian packages of any suite, without root and without installing them.
//!
//! `apt-get` runs with a state of its own and the machine's settings (proxy, certificates), and
//! checks signatures and hashes as ever; `dpkg -x` unpacks. No script of a package runs, so no
//! service starts behind anyone's back.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Result, Tried};
use crate::kit::sources;
use crate::kit::tool::Tools;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const PARTS: &str = "/etc/apt/apt.conf.d";

/// Fetches `packages` of `suite` into `folder`; says where they are unpacked.
pub(crate) async fn fetch(
    tools: &Tools,
    folder: &Path,
    suite: &str,
    packages: &[&[&str]],
) -> Result<PathBuf> {
    tools.need(&["apt-get", "dpkg"]).await?;
    if !Path::new(KEYRING).is_file() {
        return Err(tools.missing("Debian's keyring"));
    }
    let mirror = sources::mirror(Path::new("/etc/apt"));
    let mirror = mirror.ok_or_else(|| tools.missing("a Debian mirror"))?;
    let apt = folder.join("apt");
    let config = configure(&apt, &mirror, suite)?;
    let debs = apt.join("debs");
    let get = || {
        let mut get = Command::new("apt-get");
        get.arg("-qq").env("APT_CONFIG", &config).current_dir(&debs);
        get
    };
    tools.run(get().arg("update")).await?;
    tools.run(get().arg("download").args(packages.iter().copied().flatten())).await?;
    let unpacked = folder.join("debian");
    for deb in std::fs::read_dir(&debs).at("reading", &debs)? {
        let deb = deb.at("reading", &debs)?.path();
        tools.run(Command::new("dpkg").arg("-x").arg(deb).arg(&unpacked)).await?;
    }
    // The suite's index alone is many times the server.
    std::fs::remove_dir_all(&apt).at("removing", &apt)?;
    Ok(unpacked)
}

/// A private state of apt; its settings file.
fn configure(apt: &Path, mirror: &str, suite: &str) -> Result<PathBuf> {
    for part in ["state/lists/partial", "cache/archives/partial", "debs", "parts"] {
        let folder = apt.join(part);
        std::fs::create_dir_all(&folder).at("making", &folder)?;
    }
    let file = |name: &str, text: String| {
        let file = apt.join(name);
        std::fs::write(&file, text).at("writing", &file)
    };
    // Nothing counts as installed, so that the machine's own version does not matter.
    file("status", String::new())?;
    file("sources.list", format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))?;
    let at = |name: &str| apt.join(name).display().to_string();
    let text = format!(
        "Dir::State \"{}\";\nDir::State::status \"{}\";\nDir::Cache \"{}\";\n\
         Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\nDir::Etc::parts \"{}\";\n\
         Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         // As root, apt would change to a user who cannot write here.\n\
         APT::Sandbox::User \"\";\n",
        at("state"),
        at("status"),
        at("cache"),
        at("sources.list"),
        at("parts"),
    );
    file("apt.conf", text)?;
    settings(&apt.join("parts"))?;
    Ok(apt.join("apt.conf"))
}

/// Copies the machine's settings but those with hooks, which want root or change the machine.
fn settings(parts: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(PARTS) else { return Ok(()) };
    for entry in entries {
        let entry = entry.tried(|| format!("reading {PARTS}"))?;
        // One that an ordinary user may not read holds nothing for one.
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        if !text.contains("Invoke") {
            let part = parts.join(entry.file_name());
            std::fs::write(&part, text).at("writing", &part)?;
        }
    }
    Ok(())
}
