//! Brings a system up as its recipe says, and takes it down.

use std::{fs, path::Path, time::Duration};

use crate::{
    Fault, Lab, Side, machine,
    process::Process,
    system::{Launch, Ready, Recipe},
};

/// What a process gets to become ready.
const READY_LIMIT: Duration = Duration::from_secs(15);

/// A system that is up. It is taken down when this is dropped.
pub struct Running<'a> {
    lab: &'a Lab,
    recipe: &'a Recipe,
    gateways: Vec<(Side, Process)>,
}

/// Bytes of resident memory of the gateways of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Of gateway A.
    pub a_bytes: u64,
    /// Of gateway B.
    pub b_bytes: u64,
}

impl Resident {
    /// Of the larger gateway.
    pub fn larger_bytes(self) -> u64 {
        self.a_bytes.max(self.b_bytes)
    }
}

impl<'a> Running<'a> {
    /// Writes the files of `recipe` and starts its processes.
    ///
    /// # Errors
    /// When something of it does not work.
    pub fn start(recipe: &'a Recipe, lab: &'a Lab) -> Result<Self, Fault> {
        write_files(recipe)?;
        if !recipe.first.is_empty() && !recipe.folder.join(FIRST_DONE).exists() {
            for launch in &recipe.first {
                bring_up(recipe, launch, lab)?;
            }
            let done = recipe.folder.join(FIRST_DONE);
            fs::write(&done, "").map_err(Fault::file(&done))?;
        }
        let mut running = Self {
            lab,
            recipe,
            gateways: Vec::new(),
        };
        for launch in &recipe.gateways {
            let process = bring_up(recipe, launch, lab)?;
            running.gateways.push((launch.side, process));
        }
        for step in &recipe.after {
            lab.output(step.side, &step.argv)?;
        }
        Ok(running)
    }

    /// What is running.
    pub fn recipe(&self) -> &'a Recipe {
        self.recipe
    }

    /// # Errors
    /// When one of its processes has ended.
    pub fn must_run(&mut self) -> Result<(), Fault> {
        self.gateways
            .iter_mut()
            .try_for_each(|(_, process)| process.must_run())
    }

    /// What its processes said last.
    pub fn said(&self) -> Vec<String> {
        let tails = self.gateways.iter().map(|(_, process)| process);
        tails
            .filter(|process| !process.tail().is_empty())
            .map(|process| format!("{}: {}", process.name(), process.tail()))
            .collect()
    }

    /// Memory of its gateways; none if it has no processes.
    pub fn resident(&self) -> Option<Resident> {
        let of = |side| {
            let pids = self.gateways.iter().filter(|(own, _)| *own == side);
            pids.map(|(_, process)| machine::resident_bytes(process.pid()))
                .try_fold(0, |sum, bytes| bytes.map(|bytes| sum + bytes))
        };
        let has_processes = !self.gateways.is_empty();
        let resident = || {
            Some(Resident {
                a_bytes: of(Side::A)?,
                b_bytes: of(Side::B)?,
            })
        };
        has_processes.then(resident).flatten()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        while let Some((_, process)) = self.gateways.pop() {
            drop(process);
        }
        for step in &self.recipe.undo {
            // What is gone already need not be undone.
            let _ = self.lab.output(step.side, &step.argv);
        }
    }
}

/// Says that the first start is behind us.
const FIRST_DONE: &str = "started-once";

fn write_files(recipe: &Recipe) -> Result<(), Fault> {
    fs::create_dir_all(&recipe.folder).map_err(Fault::file(&recipe.folder))?;
    for file in &recipe.files {
        let path = recipe.folder.join(&file.name);
        fs::write(&path, &file.text).map_err(Fault::file(&path))?;
        owner_only(&path)?;
    }
    Ok(())
}

/// A configuration may hold a private key.
fn owner_only(path: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Fault::file(path))
}

fn bring_up(recipe: &Recipe, launch: &Launch, lab: &Lab) -> Result<Process, Fault> {
    let name = format!(
        "{} {}",
        recipe.key.title(),
        launch.side.name().to_uppercase()
    );
    let mut process = lab.start(launch.side, &name, &launch.argv)?;
    let interrupt = lab.interrupt();
    match &launch.ready {
        Ready::Line(line) => process.wait_for_line(line, READY_LIMIT, interrupt)?,
        Ready::Port(port) => process.wait_until(READY_LIMIT, interrupt, |_| {
            lab.is_listening(launch.side, *port)
        })?,
        Ready::File(path) => process.wait_until(READY_LIMIT, interrupt, |_| path.exists())?,
    }
    Ok(process)
}

#[cfg(test)]
mod tests;
