//! Programs that run with the libraries of their own suite, not with those of this machine.
//!
//! A program of a newer Debian wants a newer C library than an older machine has. So each is
//! started through the dynamic linker that came with it, by a script of two lines. The script
//! finds everything from its own place: a kit may be moved.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Error, Result, Tried};
use crate::kit::tool::Tools;

/// Where packages keep libraries: newer suites in the second only.
const FOLDERS: [&str; 2] = ["lib", "usr/lib"];

/// The dynamic linker of unpacked packages, and where their libraries are.
#[derive(Debug)]
pub(crate) struct Libraries {
    root: PathBuf,
    /// From the root, as all that goes into a script.
    linker: String,
    folders: Vec<String>,
}

impl Libraries {
    pub(crate) fn find(tools: &Tools, root: &Path) -> Result<Self> {
        // One folder for each architecture, and only this machine's was asked for.
        for folder in FOLDERS {
            for machine in names(&root.join(folder))? {
                let files = names(&root.join(folder).join(&machine))?;
                let linker =
                    files.iter().find(|name| name.starts_with("ld-") && name.contains(".so."));
                if let Some(linker) = linker {
                    return Ok(Self {
                        root: root.to_owned(),
                        linker: format!("{folder}/{machine}/{linker}"),
                        folders: FOLDERS.map(|folder| format!("{folder}/{machine}")).to_vec(),
                    });
                }
            }
        }
        let (broker, program) = (tools.broker.clone(), "the dynamic linker".to_owned());
        Err(Error::NoProgram { broker, program })
    }

    /// Puts the script in the place of the program, for one that is started by its path.
    pub(crate) async fn start_in_place(&self, tools: &Tools, program: &Path) -> Result<()> {
        let name = super::name(tools, program)?;
        self.check(tools, program).await?;
        let moved = program.with_file_name(format!("{}.elf", name.to_string_lossy()));
        std::fs::rename(program, &moved).at("moving", program)?;
        self.script(program, &moved, "")
    }

    /// A script that runs `before`, which may use `$root`, and then `program`.
    pub(crate) fn script(&self, script: &Path, program: &Path, before: &str) -> Result<()> {
        let inside = |path: &Path| {
            let rest = path.strip_prefix(&self.root).unwrap_or(path);
            format!("$root/{}", rest.display())
        };
        let folders: Vec<_> = self.folders.iter().map(|folder| format!("$root/{folder}")).collect();
        let (linker, program) = (&self.linker, inside(program));
        let command =
            format!("\"$root/{linker}\" --library-path \"{}\" \"{program}\"", folders.join(":"));
        write(script, &self.root, &format!("{before}exec {command} \"$@\"\n"))
    }

    /// Names the library that a program or library lacks, before it fails in an odder way.
    pub(crate) async fn check(&self, tools: &Tools, program: &Path) -> Result<()> {
        let folders: Vec<_> = self.folders.iter().map(|folder| self.root.join(folder)).collect();
        let folders = std::env::join_paths(folders).map_err(std::io::Error::other);
        let mut list = Command::new(self.root.join(&self.linker));
        list.arg("--library-path").arg(folders.tried(|| "naming libraries".to_owned())?);
        let listed = tools.run(list.arg("--list").arg(program)).await?;
        match listed.lines().find(|line| line.contains("not found")) {
            Some(missing) => Err(Error::NoProgram {
                broker: tools.broker.clone(),
                program: missing.trim().to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// Writes a shell script whose `$root` is the folder `root`, wherever both are moved.
pub(crate) fn write(script: &Path, root: &Path, text: &str) -> Result<()> {
    let up = up(script, root);
    let text = format!("#!/bin/sh\nroot=\"${{0%/*}}/{up}\"\n{text}");
    std::fs::write(script, text).at("writing", script)?;
    std::fs::set_permissions(script, PermissionsExt::from_mode(0o755)).at("marking", script)
}

/// The way from a script's folder to `root`.
fn up(script: &Path, root: &Path) -> String {
    let mut up = String::new();
    let folders = script.ancestors().skip(1);
    for folder in folders {
        if let Ok(down) = root.strip_prefix(folder) {
            up.push_str(&down.display().to_string());
            break;
        }
        up.push_str("../");
    }
    up.trim_end_matches('/').to_owned()
}

/// The names in a folder, in order; none where there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.at("reading", folder)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.at("reading", folder)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_finds_its_root_from_anywhere_in_the_kit() {
        let root = Path::new("/kits/x/debian");
        assert_eq!(up(Path::new("/kits/x/bin/program"), root), "../debian");
        assert_eq!(up(Path::new("/kits/x/debian/usr/bin/program"), root), "../..");
    }

    #[test]
    fn a_moved_kit_still_starts() {
        let kit = std::env::temp_dir().join(format!("kit-{}", std::process::id()));
        let moved = kit.with_extension("moved");
        let bin = kit.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(kit.join("debian")).unwrap();
        std::fs::write(kit.join("debian/word"), "found").unwrap();
        write(&bin.join("say"), &kit.join("debian"), "cat \"$root/word\"\n").unwrap();
        std::fs::rename(&kit, &moved).unwrap();
        let said = std::process::Command::new(moved.join("bin/say")).output().unwrap();
        assert_eq!(said.stdout, b"found");
        std::fs::remove_dir_all(&moved).unwrap();
    }
}
