//! Sees to it that nothing we started outlives us, even if we are killed and have no time to end it ourselves.
//!
//! A small shell waits at the other end of a pipe that only we hold open. When we end, however we end, the pipe closes,
//! and the shell ends the processes that are still registered and removes the folder that everything is in.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::Pid;

/// Reads lines `watch PID`, `forget PID` and `remove PATH`. A process ends with all its descendants: PostgreSQL's
/// children lead process groups of their own.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
end() {
    kill -STOP "$1"
    for status in $(grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status); do
        status=${status#/proc/}
        end "${status%/status}"
    done
    kill -KILL "$1"
}
processes= file=
while read -r verb what; do
    case $verb in
        watch) processes="$processes $what" ;;
        forget)
            left=
            for process in $processes; do [ "$process" = "$what" ] || left="$left $process"; done
            processes=$left ;;
        remove) file=$what ;;
    esac
done
for process in $processes; do end "$process"; done
[ -z "$file" ] || rm -f "$file"
# Somebody may have written while they were being ended.
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

struct Keeper {
    pipe: ChildStdin,
    root: PathBuf,
}

static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

/// The folder that this process' servers live in; it goes when this process goes.
pub(crate) fn root() -> std::io::Result<PathBuf> {
    with_keeper(|keeper| Ok(keeper.root.clone()))
}

/// From now on the process and its descendants end when we do.
pub(crate) fn watch(process: Pid) -> std::io::Result<()> {
    tell(&format!("watch {}", process.as_raw_nonzero()))
}

/// The process has ended; its number may become somebody else's.
pub(crate) fn forget(process: Pid) {
    // A keeper that is gone has nothing to forget.
    let _ = tell(&format!("forget {}", process.as_raw_nonzero()));
}

/// The file is removed when we end.
pub(crate) fn remove(file: &Path) -> std::io::Result<()> {
    tell(&format!("remove {}", file.display()))
}

fn tell(line: &str) -> std::io::Result<()> {
    with_keeper(|keeper| writeln!(keeper.pipe, "{line}"))
}

fn with_keeper<T>(then: impl FnOnce(&mut Keeper) -> std::io::Result<T>) -> std::io::Result<T> {
    let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    if keeper.is_none() {
        *keeper = Some(Keeper::start()?);
    }
    keeper.as_mut().map_or_else(|| Err(std::io::ErrorKind::NotFound.into()), then)
}

impl Keeper {
    fn start() -> std::io::Result<Self> {
        let root = tempfile::Builder::new().prefix("tokenkeep-services-").tempdir()?.keep();
        // Servers that will not run as root run as somebody else, who must be able to pass.
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o711))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "keeper"]).arg(&root).process_group(0);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let pipe = shell.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Self { pipe, root })
    }
}
