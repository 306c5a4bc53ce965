//! The cases, in the order in which they run.

pub(crate) mod equality;
mod files;
mod processes;
mod ui;
mod upgrade;

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
    ("newest_opens", |live| live.newest(files::opens)),
    ("newest_upgrades_under_load", upgrade::under_load),
    ("newest_equals_server_captured", |live| {
        live.newest(equality::captured)
    }),
    ("newest_equals_server_generated", |live| {
        live.newest(equality::generated)
    }),
    ("newest_writes_head_shape", |live| {
        live.newest(equality::head_shape)
    }),
    ("newest_ui_screenshot", |live| {
        live.newest(ui::ui_screenshot)
    }),
];
