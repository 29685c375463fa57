//! `corinth backup`, `restore` and `bundle`: what a node keeps on disk.
//!
//! A backup is one file, as secret as the state itself: it holds the key of the cluster's authority. Neither command
//! overwrites anything unless told to, and even then a restore moves the present state aside instead of removing it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use corinth_control::cluster::file;
use corinth_gateway::settings::{Identity, IdentityFiles, read_file};
use corinth_identity::{StateDir, StateError, create_private};
use corinth_model::TrustDomain;
use jiff::Timestamp;
use rustls_pki_types::UnixTime;

use crate::{
    args::{BackupArgs, NodeArgs, RestoreArgs},
    config::{self, NodeSettings},
    exit::Exit,
    terminal::Terminal,
    trouble::Trouble,
};

/// What is kept in a state directory beside the authority; a name with a slash at its end means all that is below.
const FURTHER_FILES: &[&str] = &[
    // By a gateway.
    "import-ports.json",
    "last-good.yaml",
    "last-good.previous.yaml",
    // By a control plane.
    "cluster.yaml",
    "cluster.yaml.last-good",
    "invitations.json",
    "bundles.json",
    "control/",
];
/// What names the life of a control plane's state. It is not restored, so that a new one begins: peers have seen more of
/// the old one than a backup knows, and what was removed since must not come back to life at them.
const OF_ONE_LIFE: &[&str] = &["control/instance.json"];
/// The roots for peers, of a built-in authority.
const BUNDLE_FILE: &str = "bundle.pem";

pub(crate) fn backup(terminal: &Terminal, args: &BackupArgs) -> Result<Exit, Trouble> {
    let what = || format!("no backup was written to {}", args.output.display());
    let settings = config::usable(&args.node.config)?;
    let elsewhere = match &settings {
        NodeSettings::Gateway(settings) => kept_elsewhere(&settings.identity),
        NodeSettings::Control(_) => None,
    };
    if let Some((why, remedy)) = elsewhere {
        return Err(Trouble::new(Exit::Found, what(), why, remedy));
    }
    if !args.overwrite && fs::symlink_metadata(&args.output).is_ok() {
        return Err(Trouble::new(
            Exit::Internal,
            what(),
            "it already exists",
            "choose another name, or replace it with --overwrite",
        ));
    }
    // Opening makes the directory, which would hide that the path is wrong.
    let state_dir = settings.state_dir();
    if !state_dir.exists() {
        return Err(Trouble::new(
            Exit::Unreachable,
            what(),
            format!("there is no state directory {}", state_dir.display()),
            "check `stateDir` in the configuration; a node that never ran has nothing to back up",
        ));
    }
    let failed = |error: StateError| state_trouble(what(), &error);
    let state = StateDir::open(state_dir).map_err(failed)?;
    let mut archive = Vec::new();
    state.backup(FURTHER_FILES, &mut archive).map_err(failed)?;
    write_private(&args.output, &archive).map_err(|error| {
        Trouble::new(
            Exit::Internal,
            what(),
            error,
            "check that the directory exists, may be written to and has room",
        )
    })?;
    terminal.note(&format!(
        "backed up {} to {}; it holds the private key of the cluster's authority: keep it secret\n",
        state_dir.display(),
        args.output.display()
    ));
    if let NodeSettings::Control(settings) = &settings
        && settings.objects != settings.state_dir.join(file::DEFAULT_NAME)
    {
        terminal.note(&format!(
            "links and exports are declared in {}, which is not in it: keep that file too\n",
            settings.objects.display()
        ));
    }
    Ok(Exit::Done)
}

/// Where to look for the authority that a gateway does not have itself, and what to do.
fn kept_elsewhere(identity: &Identity) -> Option<(&'static str, &'static str)> {
    match identity {
        Identity::BuiltIn { .. } => None,
        Identity::Control => Some((
            "the certificate of this gateway is issued by its control plane",
            "name the configuration of the control plane with --config; everything here grows anew",
        )),
        Identity::Authority { .. } | Identity::Leaf { .. } => Some((
            "the identity of this node comes from files that its configuration names",
            "back up those files where they are made; everything else grows anew",
        )),
    }
}

pub(crate) fn restore(terminal: &Terminal, args: &RestoreArgs) -> Result<Exit, Trouble> {
    let settings = config::usable(&args.node.config)?;
    let (target, trust_domain) = (settings.state_dir(), settings.trust_domain());
    let what = || format!("{} was not restored", target.display());
    let failed = |error: StateError| state_trouble(what(), &error);
    let io_failed = |error: io::Error| {
        Trouble::new(
            Exit::Internal,
            what(),
            error,
            "check that the directory above it may be written to and has room",
        )
    };
    let input = File::open(&args.input)
        .and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("not a regular file")),
        })
        .map_err(|error| {
            let what = format!("the backup {} cannot be read", args.input.display());
            let remedy = "check the path and who may read the file";
            Trouble::new(Exit::Unreachable, what, error, remedy)
        })?;
    if !args.overwrite || !target.exists() {
        let state = StateDir::open(target).map_err(failed)?;
        state
            .restore(trust_domain, OF_ONE_LIFE, input)
            .map_err(failed)?;
    } else {
        // Beside it and whole before anything that is there moves.
        let suffix = Timestamp::now().as_second();
        let beside = sibling(target, &format!("restoring-{suffix}"));
        let state = StateDir::open(&beside).map_err(failed)?;
        if let Err(error) = state.restore(trust_domain, OF_ONE_LIFE, input) {
            // Ours alone, and of no use.
            let _ = fs::remove_dir_all(&beside);
            return Err(failed(error));
        }
        let aside = sibling(target, &format!("before-restore-{suffix}"));
        fs::rename(target, &aside).map_err(io_failed)?;
        fs::rename(&beside, target).map_err(io_failed)?;
        terminal.note(&format!(
            "the state that was there is now {}\n",
            aside.display()
        ));
    }
    terminal.note(&format!(
        "restored {}; start the node, or start it again if it runs\n",
        target.display()
    ));
    Ok(Exit::Done)
}

pub(crate) fn bundle(terminal: &Terminal, args: &NodeArgs) -> Result<Exit, Trouble> {
    let settings = config::usable(&args.config)?;
    let what = "the roots of this node cannot be printed";
    let kept = || {
        built_in(terminal, settings.state_dir(), settings.trust_domain())
            .map_err(|error| state_trouble(what.to_owned(), &error))
    };
    let identity = match &settings {
        NodeSettings::Control(_) => IdentityFiles::BuiltIn,
        NodeSettings::Gateway(settings) => {
            let files = settings.load(read_file);
            files
                .map_err(|mistakes| config::wrong(&args.config, &mistakes))?
                .identity
        }
    };
    let pem = match &identity {
        IdentityFiles::Authority { certificate, .. } => certificate.pem().to_owned(),
        IdentityFiles::Leaf { bundle, .. } => bundle.pem().to_owned(),
        IdentityFiles::Control => {
            return Err(Trouble::new(
                Exit::Found,
                what,
                "its certificate is issued by its control plane, which has the roots",
                "name the configuration of the control plane with --config",
            ));
        }
        IdentityFiles::BuiltIn => kept()?,
    };
    terminal.print(&pem)?;
    Ok(Exit::Done)
}

/// The roots of the authority in the state directory, which is made if there is none.
fn built_in(
    terminal: &Terminal,
    state_dir: &Path,
    trust_domain: &TrustDomain,
) -> Result<String, StateError> {
    let state = StateDir::open(state_dir)?;
    let made = state.load_or_create(trust_domain, UnixTime::now())?;
    if made.is_new {
        terminal.note(&format!(
            "made the authority of {} in {}\n",
            trust_domain.as_str(),
            state_dir.display()
        ));
    }
    let path = state_dir.join(BUNDLE_FILE);
    fs::read_to_string(&path).map_err(|error| StateError::Io {
        action: "reading",
        path,
        error,
    })
}

impl NodeSettings {
    fn state_dir(&self) -> &Path {
        match self {
            Self::Gateway(settings) => &settings.state_dir,
            Self::Control(settings) => &settings.state_dir,
        }
    }

    fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Gateway(settings) => &settings.trust_domain,
            Self::Control(settings) => &settings.trust_domain,
        }
    }
}

/// Writes `bytes` to a new file that only we may read, and puts it at `path` once it is whole.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = sibling(path, &format!("writing-{}", std::process::id()));
    let written = create_private(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        // What is half written must not stay: it is secret.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// `path` with something more at the end of its name.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn state_trouble(what: String, error: &StateError) -> Trouble {
    let (exit, remedy) = match error {
        StateError::Occupied(_) => (
            Exit::Internal,
            "restore with --overwrite to move what is there aside first",
        ),
        StateError::Archive(_) => (
            Exit::Found,
            "use a file that corinth backup has written, of a node with the same trust domain",
        ),
        StateError::Empty { .. } => (Exit::Found, "corinth run --config FILE"),
        StateError::Permissions { .. } => (Exit::Internal, "run that command, then try again"),
        StateError::Io { .. } => (
            Exit::Internal,
            "check `stateDir` in the configuration, and who owns that directory",
        ),
        StateError::BackupTooLarge { .. } => (Exit::Found, "make it smaller, then try again"),
        StateError::Kind { .. }
        | StateError::TooLarge { .. }
        | StateError::KeyMissing { .. }
        | StateError::Authority { .. }
        | StateError::Bundle { .. }
        | StateError::Roots { .. }
        | StateError::RotationUnderWay
        | StateError::NoRotation
        | StateError::Name(_) => (
            Exit::Internal,
            "mend the state directory, or restore a backup with --overwrite",
        ),
    };
    Trouble::new(exit, what, error, remedy)
}
