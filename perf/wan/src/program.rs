//! Running `ip` and `tc`.

use std::{
    env,
    ffi::OsString,
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::fault::Fault;

/// Runs a program to its end and gives what it printed.
pub(crate) fn run(program: &'static str, args: &[&str]) -> Result<String, Fault> {
    let output = command(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Fault::NoProgram { program, source })?;
    judge(output, || format!("{program} {}", args.join(" ")))
}

/// Feeds `ip -batch` in a namespace.
pub(crate) fn ip_batch(namespace: &str, batch: &str) -> Result<(), Fault> {
    let mut child = command("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Fault::NoProgram {
            program: "ip",
            source,
        })?;
    if let Some(mut pipe) = child.stdin.take() {
        // If it ends early it says why on its standard error.
        let _ = pipe.write_all(batch.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(Fault::system("waiting for ip"))?;
    judge(output, || {
        format!("ip -n {namespace} ({})", batch.trim().replace('\n', "; "))
    })?;
    Ok(())
}

fn judge(output: Output, command: impl FnOnce() -> String) -> Result<String, Fault> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it said nothing").to_owned();
    Err(Fault::Refused {
        command: command(),
        said,
    })
}

/// Administrators' folders are not on everybody's path.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(OsString::from(":/usr/sbin:/sbin"));
    command.env("PATH", path).env("LC_ALL", "C");
    command
}
