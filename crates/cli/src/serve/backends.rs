//! What an engine stands on, opened: the store, and whatever the instances share beside it.

use std::sync::Arc;

use anyhow::{Result, bail};
use tokenkeep_core::ports::Store;
use tokenkeep_store::{Memory, Sqlite};

use super::store::{Choice, Place};

/// Opened, and made where something was missing.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) store: Arc<dyn Store>,
}

impl Backends {
    pub(crate) async fn open(choice: &Choice) -> Result<Self> {
        let store: Arc<dyn Store> = match &choice.place {
            Place::Memory => Arc::new(Memory::new()),
            Place::Sqlite(path) => Arc::new(Sqlite::open(path).await?),
            other => bail!("{other} cannot be opened yet"),
        };
        Ok(Self { store })
    }
}
