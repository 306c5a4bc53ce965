//! The cases, in the order in which they run.

mod catalog;
mod equality;
mod faults;
mod features;
mod maintenance;
mod sql;
mod views;
mod writers;

use super::super::CaseResult;
use super::Unity;

/// A case: tries one thing and says what it saw.
type Case = fn(&mut Unity) -> CaseResult;

/// The one table of cases.
pub(super) const ALL: &[(&str, Case)] = &[
    ("equals_captured", equality::captured),
    ("equals_generated", equality::generated),
    ("comparison_can_fail", equality::comparison_can_fail),
    ("older_columns_by_spark", equality::older_columns),
    ("features_by_spark", features::written),
    ("features_refused", features::refused),
    ("opens_elsewhere", equality::opens_elsewhere),
    ("documented_sql", sql::documented),
    ("documented_views", views::documented),
    ("maintained_by_spark", maintenance::by_spark),
    ("catalog_server_files", catalog::files),
    ("catalog_server_refuses", catalog::refuses),
    ("killed_writers_files", writers::killed_on_files),
    ("store_creates_once", writers::store_creates_once),
    ("killed_writers_store", writers::killed_on_store),
    ("faults_of_the_store", faults::of_the_store),
    ("credentials_expire", faults::credentials_expire),
];
