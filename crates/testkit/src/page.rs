//! Parts of documentation that are generated from the code.

/// Checks that a page has a generated part, between the lines `<!-- NAME: begin -->` and
/// `<!-- NAME: end -->`, as it would be generated now. For tests of documentation: with the variable
/// `UPDATE_DOCS` set, the part is written anew instead.
///
/// # Errors
/// What differs, for the developer.
pub fn check_page(page: &std::path::Path, name: &str, generated: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(page).map_err(|e| format!("{}: {e}", page.display()))?;
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let from = text.find(&begin).map(|at| at + begin.len());
    let from = from.ok_or_else(|| format!("{} has no `{begin}`", page.display()))?;
    let to = text[from..].find(&end).map(|at| from + at);
    let to = to.ok_or_else(|| format!("{} has no `{end}`", page.display()))?;
    if &text[from..to] == generated {
        return Ok(());
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let new = format!("{}{generated}{}", &text[..from], &text[to..]);
        return std::fs::write(page, new).map_err(|e| e.to_string());
    }
    Err(format!(
        "{} differs from the code at `{name}`; run the test with UPDATE_DOCS=1. It should be:\n{generated}",
        page.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_compared_with_what_would_be_generated() {
        let folder = std::env::temp_dir().join(format!("status-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let page = folder.join("page.md");
        std::fs::write(&page, "x\n<!-- t: begin -->\nold\n<!-- t: end -->\ny\n").unwrap();
        assert_eq!(check_page(&page, "t", "old\n"), Ok(()));
        assert!(check_page(&page, "u", "old\n").is_err());
        if std::env::var_os("UPDATE_DOCS").is_none() {
            assert!(check_page(&page, "t", "new\n").is_err());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
