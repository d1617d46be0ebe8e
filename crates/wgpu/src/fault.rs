//! What a device reports when nobody asks: it is lost, or an error that no scope caught.

use std::sync::{Arc, Mutex, PoisonError};

use maxsim_core::{Error, Result};

/// Faults of a device since its creation.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    lost: Mutex<Option<String>>,
    uncaught: Mutex<Option<Error>>,
}

impl Faults {
    /// Listens to `device`.
    pub(crate) fn of(device: &wgpu::Device) -> Arc<Self> {
        let faults = Arc::new(Self::default());
        let here = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let reason = if message.is_empty() { format!("{reason:?}") } else { message };
            here.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        });
        let here = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            here.uncaught.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(typed(error, 0, ""));
        }));
        faults
    }

    /// `ERR_DEVICE_LOST` once the device is lost, and an uncaught error once.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_lost()?;
        match self.uncaught.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// `ERR_DEVICE_LOST` once the device is lost.
    pub(crate) fn check_lost(&self) -> Result<()> {
        match &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// An error of wgpu as ours. `requested`: bytes that were being allocated; `kernel`: what was being compiled or run.
pub(crate) fn typed(error: wgpu::Error, requested: u64, kernel: &str) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { requested },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Compile { kernel: kernel.into(), log: description }
        }
    }
}
