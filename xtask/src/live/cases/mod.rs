//! The cases, in the order in which they run.

pub(in crate::live) mod equality;
mod files;
mod processes;
mod ui;

use super::Case;

/// The one table of cases.
pub(super) const ALL: &[(&str, Case)] = &[
    ("comparison_can_fail", equality::comparison_can_fail),
    ("opens", files::opens),
    ("equals_server_captured", equality::captured),
    ("equals_server_generated", equality::generated),
    ("writes_head_shape", equality::head_shape),
    ("upgrade_under_writer", files::upgrade_under_writer),
    ("concurrent_server", processes::concurrent_server),
    ("kill_nine", processes::kill_nine),
    ("ui_screenshot", ui::ui_screenshot),
    ("older_mlflow", files::older_mlflow),
];
