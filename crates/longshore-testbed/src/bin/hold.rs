//! Starts a broker and holds it until its standard input ends: `hold BROKER`.
//! `--root` names another testbed than the workspace's, `--run` another run folder.
//!
//! Prints one line of JSON once the broker is ready. The crash tests kill it; a script in another
//! language can use it for a broker that goes when the script does.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use longshore_testbed::{Options, Progress, Result, Testbed};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let mut testbed = Testbed::workspace();
    while let Some(flag) = arguments.next() {
        testbed = match (&*flag, arguments.next()) {
            ("--root", Some(root)) => Testbed::at(root),
            ("--run", Some(run)) => testbed.run_in(run),
            _ => return usage(),
        };
    }
    let Some(name) = name else { return usage() };
    match hold(&testbed, &name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("error: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: hold BROKER [--root FOLDER] [--run FOLDER]");
    ExitCode::from(2)
}

async fn hold(testbed: &Testbed, name: &str) -> Result<()> {
    let broker = testbed.broker(name, Options::default(), &Progress::shown()).await?;
    let pid = broker.nodes().first().and_then(longshore_testbed::Node::pid);
    let line = serde_json::json!({
        "url": broker.url(), "version": broker.version(), "pid": pid, "folder": broker.folder(),
    });
    // Nobody may read it; the broker is held all the same.
    let _ = writeln!(std::io::stdout(), "{line}");
    // Blocking is right here: there is nothing else to do.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    Ok(())
}
