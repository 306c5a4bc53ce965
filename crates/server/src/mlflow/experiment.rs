//! From the experiment that was named to the id spans are sent to.

use super::api::{Api, Experiment as Found};
use crate::error::{Fault, FaultExt as _};
use crate::options::MissingExperiment;
use crate::target::Experiment;
use std::sync::Arc;
use trace_destination_core::ErrorKind;

/// An experiment that is there and active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl From<Found> for Resolved {
    fn from(found: Found) -> Self {
        Self {
            id: found.experiment_id.into(),
            name: found.name.into(),
        }
    }
}

/// Finds the experiment; creates it if it is missing and wanted.
pub(crate) async fn resolve(api: Api<'_>, wanted: &Experiment) -> Result<Resolved, Fault> {
    if let Some(id) = &wanted.id {
        let found = match api.experiment_by_id(id).await {
            Ok(found) => found,
            Err(fault) if is_absent(&fault) => {
                return Err(Fault::new(
                    ErrorKind::NotFound,
                    format!("there is no experiment {id}"),
                    "create it in MLflow, or give an `experiment_name` to have it created",
                ));
            }
            Err(fault) => return Err(fault),
        };
        if let Some(name) = wanted.name.as_ref().filter(|name| **name != found.name) {
            let other = api.host.client.said(found.name.as_bytes());
            return Err(Fault::new(
                ErrorKind::Conflict,
                format!("experiment {id} is named `{other}`, not `{name}`"),
                "give the name or the id, or both of one experiment",
            ));
        }
        return active(api, found);
    }
    let name = wanted.name.as_deref().unwrap_or_default();
    match api.experiment_by_name(name).await {
        Ok(found) => return exactly(found, name).and_then(|found| active(api, found)),
        Err(fault) if !is_absent(&fault) => return Err(fault),
        Err(_) => {}
    }
    if wanted.missing == MissingExperiment::Fail {
        return Err(Fault::new(
            ErrorKind::NotFound,
            format!("there is no experiment `{name}`"),
            "create it in MLflow, or leave out `create=false`",
        ));
    }
    match api.create_experiment(name).await {
        Ok(id) => Ok(Resolved {
            id: id.into(),
            name: name.into(),
        }),
        // Somebody else was faster.
        Err(fault) if fault.code() == Some("RESOURCE_ALREADY_EXISTS") => {
            exactly(api.experiment_by_name(name).await?, name).and_then(|found| active(api, found))
        }
        // The same answer as for a bad span, but here it is about the name.
        Err(fault) if fault.status() == Some(400) => Err(Fault::new(
            ErrorKind::InvalidConfig,
            format!(
                "experiment `{name}` cannot be created: {}",
                fault.during("create experiment").cause()
            ),
            "choose another name",
        )),
        Err(fault) => Err(fault),
    }
}

/// Whether the experiment with this id is still there; `None` if it is gone or deleted.
pub(crate) async fn still_there(api: Api<'_>, id: &str) -> Result<Option<Resolved>, Fault> {
    match api.experiment_by_id(id).await {
        Ok(found) if found.is_deleted() => Ok(None),
        Ok(found) => Ok(Some(found.into())),
        Err(fault) if is_absent(&fault) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn is_absent(fault: &Fault) -> bool {
    fault.status() == Some(404) && fault.code() == Some("RESOURCE_DOES_NOT_EXIST")
}

/// A server on MySQL or SQL Server takes `Acme` for `acme`, which may be somebody else's.
fn exactly(found: Found, name: &str) -> Result<Found, Fault> {
    match found.name == name {
        true => Ok(found),
        // The other name may be another tenant's.
        false => Err(Fault::new(
            ErrorKind::Conflict,
            format!("the server takes the experiment `{name}` for one that is spelled differently"),
            "choose a name that differs in more than case and accents, or give an experiment_id",
        )),
    }
}

/// A deleted experiment takes spans, with a 200; nobody would see them.
fn active(api: Api<'_>, found: Found) -> Result<Resolved, Fault> {
    if found.is_deleted() {
        let name = api.host.client.said(found.name.as_bytes());
        return Err(Fault::new(
            ErrorKind::NotFound,
            format!("experiment {} `{name}` is deleted", found.experiment_id),
            "restore it in MLflow, or name another one",
        ));
    }
    Ok(found.into())
}
