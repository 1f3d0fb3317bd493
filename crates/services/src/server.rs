//! One server process in a folder of its own: what all of them have in common.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::{
        fs::{OpenOptionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

use crate::{
    Error, keeper,
    tree::Tree,
    wait::{self, Asked},
};

/// What a test may do to a server. The type says which `server` it is and how it is started (`start_again`).
macro_rules! controls {
    ($type:ty) => {
        impl $type {
            /// `kill -9`, to the server and all its processes.
            pub fn kill(&self) {
                self.server().kill();
            }

            /// Stops it without ending it (`SIGSTOP`): connections stay open, and nothing answers.
            pub fn pause(&self) {
                self.server().pause();
            }

            /// Wakes it up after [`pause`](Self::pause).
            pub fn resume(&self) {
                self.server().resume();
            }

            /// Starts it again on the same port with the same data, after killing it if it runs; answers when it
            /// serves.
            pub fn restart(&self) -> Result<(), $crate::Error> {
                self.start_again()
            }

            /// The folder that all its files are in.
            pub fn folder(&self) -> &std::path::Path {
                self.server().folder()
            }

            /// The last lines of its log.
            pub fn log(&self) -> String {
                self.server().log_tail()
            }
        }
    };
}
pub(crate) use controls;

/// Somebody other than root, for servers that will not run as root.
#[derive(Clone, Copy)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Who such a server runs as: `postgres` or `nobody` if we are root, else we ourselves.
    pub(crate) fn for_server() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").ok()?;
        ["postgres", "nobody"].into_iter().find_map(|name| {
            let user = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let mut fields = user.split(':').skip(1);
            Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        })
    }
}

/// A folder that goes when it is dropped, and at the latest when this process ends.
pub(crate) struct Folder {
    path: TempDir,
    owner: Option<User>,
}

impl Folder {
    pub(crate) fn new(name: &str, owner: Option<User>) -> Result<Self, Error> {
        let create = || {
            let path = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(keeper::root()?)?;
            if let Some(User { uid, gid }) = owner {
                chown(path.path(), Some(uid), Some(gid))?;
            }
            Ok(path)
        };
        let path = create().map_err(Error::because::<std::io::Error>("a temporary folder cannot be made"))?;
        Ok(Self { path, owner })
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file that its owner alone may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let file = self.join(name);
        let write = || {
            let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
            open.write_all(text.as_bytes())?;
            self.give(&file)
        };
        write().map_err(Error::because::<std::io::Error>(format!("{} cannot be written", file.display())))?;
        Ok(file)
    }

    pub(crate) fn append(&self, name: &str, text: &str) -> Result<(), Error> {
        let file = self.join(name);
        let append = || OpenOptions::new().append(true).open(&file)?.write_all(text.as_bytes());
        append().map_err(Error::because::<std::io::Error>(format!("{} cannot be written", file.display())))
    }

    /// The file becomes its owner's.
    pub(crate) fn give(&self, file: &Path) -> std::io::Result<()> {
        self.owner.map_or(Ok(()), |User { uid, gid }| chown(file, Some(uid), Some(gid)))
    }

    /// The command will run in the folder, as its owner, and find nothing of ours at home.
    fn at_home<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(User { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command.current_dir(self.path()).env("HOME", self.path()).stdin(Stdio::null())
    }

    /// Runs a program to its end as the folder's owner.
    pub(crate) fn run(&self, command: &mut Command) -> Result<(), Error> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let output = self.at_home(command).output();
        let output = output.map_err(Error::because(format!("`{shown}` cannot be run")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Error::with_log(format!("`{shown}` failed ({})", output.status), String::from_utf8_lossy(&said).into()))
    }
}

/// What to start: a program and its arguments.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The Debian package or crate that has it.
    pub(crate) package: &'static str,
}

/// A server: started, paused, killed and started again on the same port with the same data.
pub(crate) struct Server {
    // Ends before its folder goes.
    process: Mutex<Option<Tree>>,
    recipe: Recipe,
    folder: Folder,
}

impl Server {
    /// Not started yet.
    pub(crate) fn new(recipe: Recipe, folder: Folder) -> Self {
        Self { process: Mutex::new(None), recipe, folder }
    }

    /// Starts it, after killing it if it runs, and waits until `ask` is content with its answer.
    pub(crate) fn start<E: std::fmt::Display>(&self, mut ask: impl FnMut() -> Result<(), E>) -> Result<(), Error> {
        self.kill();
        let process = Tree::of(self.spawn()?).map_err(Error::because("the keeper of processes does not answer"))?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        let ready = wait::until(wait::PATIENCE, || match ask() {
            // Whatever answers, it is somebody else.
            _ if self.has_ended() => Asked::Never(Error::new("it ended")),
            Ok(()) => Asked::Done(()),
            Err(why) => Asked::NotYet(why.to_string()),
        });
        ready.map_err(|why| Error::with_log(format!("{} does not start: {why}", self.recipe.name), self.log_tail()))
    }

    fn spawn(&self) -> Result<std::process::Child, Error> {
        let Recipe { name, program, arguments, package } = &self.recipe;
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (stdout, stderr): (File, File) = log.map_err(Error::because(format!("{name}'s log cannot be written")))?;
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C at a terminal is for us, and we end it.
        self.folder.at_home(&mut command).args(arguments).process_group(0).stdout(stdout).stderr(stderr);
        let missing = format!("`{}` cannot be run; `cargo xtask test` installs it ({package})", program.display());
        command.spawn().map_err(Error::because(missing))
    }

    pub(crate) fn kill(&self) {
        let ended = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(ended);
    }

    pub(crate) fn pause(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Tree::pause);
    }

    pub(crate) fn resume(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Tree::resume);
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).as_mut().is_none_or(Tree::has_ended)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].iter().flat_map(|line| [line, "\n"]).collect()
    }
}
