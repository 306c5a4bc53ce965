//! Which triggers could change the rows that are written, or keep them out without an error.
//!
//! SQLite has no list of what a trigger does, so its text is read. A trigger is taken for harmless
//! only where it writes to tables of its own and undoes nothing.

/// A trigger, as `sqlite_schema` has it.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) table: String,
    tokens: Vec<Token>,
}

#[derive(Debug)]
struct Token {
    text: String,
    /// A name in quotes, or a text: never a keyword.
    quoted: bool,
}

impl Token {
    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(keyword)
    }
}

impl Trigger {
    pub(super) fn new(name: String, table: String, sql: &str) -> Self {
        Self {
            name,
            table,
            tokens: tokens(sql),
        }
    }

    /// Whether this is the trigger that `sql` makes, however it is laid out: SQLite itself puts
    /// names into quotes when it renames a table.
    pub(super) fn is(&self, sql: &str) -> bool {
        let other = tokens(sql);
        let same = |(a, b): (&Token, &Token)| a.text.eq_ignore_ascii_case(&b.text);
        self.tokens.len() == other.len() && self.tokens.iter().zip(&other).all(same)
    }

    /// Whether an insert or an update runs it.
    fn fires(&self) -> bool {
        let event = self
            .tokens
            .iter()
            .find(|t| t.is("DELETE") || t.is("INSERT") || t.is("UPDATE"));
        event.is_none_or(|event| !event.is("DELETE"))
    }

    fn body(&self) -> &[Token] {
        match self.tokens.iter().position(|t| t.is("BEGIN")) {
            Some(begin) => &self.tokens[begin + 1..],
            None => &self.tokens,
        }
    }

    /// Whether it can make the statement that runs it do nothing, or take back the transaction.
    /// One that ends the statement with an error is no harm: the row is refused alone.
    fn undoes(&self) -> bool {
        let body = self.body();
        let ignores =
            |i: usize| body[i].is("RAISE") && body.get(i + 2).is_some_and(|t| t.is("IGNORE"));
        (0..body.len()).any(|i| ignores(i) || body[i].is("ROLLBACK"))
    }

    /// The tables its statements write to.
    fn targets(&self) -> impl Iterator<Item = &str> {
        let body = self.body();
        let writes = |(i, token): (usize, &Token)| {
            let mut rest = body[i + 1..].iter();
            match () {
                () if token.is("INTO") => {}
                () if token.is("DELETE") => {
                    rest.next().filter(|t| t.is("FROM"))?;
                }
                () if token.is("UPDATE") => {
                    if rest.as_slice().first()?.is("OR") {
                        rest.nth(1);
                    }
                    // `ON CONFLICT DO UPDATE SET` has its table before.
                    if rest.as_slice().first()?.is("SET") {
                        return None;
                    }
                }
                () => return None,
            }
            rest.next().map(|t| t.text.as_str())
        };
        body.iter().enumerate().filter_map(writes)
    }
}

/// The first trigger of a table that could change rows of the written tables, or keep them out.
pub(super) fn harmful<'t>(
    triggers: &'t [Trigger],
    table: &str,
    written: &[&str],
) -> Option<&'t Trigger> {
    let on = |table: &str| -> Vec<usize> {
        let same = |(_, t): &(usize, &Trigger)| t.table.eq_ignore_ascii_case(table);
        let found = triggers.iter().enumerate().filter(same);
        found.map(|(i, _)| i).collect()
    };
    let first = on(table).into_iter().filter(|i| triggers[*i].fires());
    first
        .map(|i| {
            // Whatever a trigger sets off counts as its own doing.
            let (mut seen, mut open) = (vec![i], vec![i]);
            while let Some(next) = open.pop() {
                let trigger = &triggers[next];
                let hits = |t: &str| written.iter().any(|w| w.eq_ignore_ascii_case(t));
                if trigger.undoes() || trigger.targets().any(hits) {
                    return Some(&triggers[i]);
                }
                for further in trigger.targets().flat_map(on) {
                    if !seen.contains(&further) {
                        seen.push(further);
                        open.push(further);
                    }
                }
            }
            None
        })
        .find_map(|found| found)
}

/// The words, names, texts and signs of a statement, without comments.
fn tokens(sql: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let quoted = matches!(c, '\'' | '"' | '`' | '[');
        let length = match c {
            _ if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '-' if rest.starts_with("--") => {
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest[2..].split_once("*/").map_or("", |(_, after)| after);
                continue;
            }
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            _ if quoted => end_of_quoted(rest, c),
            _ if is_of_word(c) => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
            _ => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        let text = match quoted {
            true => unquoted(token, c),
            false => token.to_owned(),
        };
        found.push(Token { text, quoted });
    }
    while found.pop_if(|t| t.is(";")).is_some() {}
    found
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// Where a token in quotes ends; a doubled quote is part of it.
fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut from = 1;
    while let Some(at) = text[from..].find(quote) {
        from += at + 1;
        if !text[from..].starts_with(quote) {
            return from;
        }
        from += 1;
    }
    text.len()
}

fn unquoted(token: &str, quote: char) -> String {
    let close = if quote == '[' { ']' } else { quote };
    let inner = &token[1..];
    let inner = inner.strip_suffix(close).unwrap_or(inner);
    match quote {
        '[' => inner.to_owned(),
        _ => inner.replace(&format!("{quote}{quote}"), &quote.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: [&str; 2] = ["spans", "trace_info"];

    fn harms(sqls: &[&str]) -> bool {
        let triggers: Vec<_> = sqls
            .iter()
            .enumerate()
            .map(|(i, sql)| {
                let words = tokens(sql);
                let on = words.iter().position(|t| t.is("ON")).unwrap();
                Trigger::new(format!("t{i}"), words[on + 1].text.clone(), sql)
            })
            .collect();
        harmful(&triggers, "spans", &WRITTEN).is_some()
    }

    #[test]
    fn what_could_change_rows_or_keep_them_out_is_harmful() {
        for sql in [
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN UPDATE spans SET name = 'x'; END",
            "create trigger t after insert on Spans begin update or ignore SPANS set name = 1; end",
            "CREATE TRIGGER t INSERT ON [spans] BEGIN DELETE FROM \"trace_info\"; END",
            "CREATE TRIGGER t UPDATE OF name ON spans BEGIN INSERT INTO `spans` VALUES (1); END",
            "CREATE TRIGGER t BEFORE INSERT ON spans BEGIN SELECT RAISE(IGNORE); END",
            "CREATE TRIGGER t BEFORE INSERT ON spans BEGIN SELECT raise /**/ (ROLLBACK, 'no'); END",
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN INSERT OR rollback INTO log VALUES (1); END",
            "CREATE TRIGGER t BEFORE INSERT ON spans BEGIN SELECT CASE WHEN 1 THEN RAISE(ABORT, 'a') ELSE Raise(Ignore) END; END",
            "CREATE TRIGGER t BEFORE INSERT ON spans BEGIN REPLACE/* a */INTO--\n'spans' SELECT 1; END",
            "CREATE TRIGGER \"delete\" AFTER INSERT ON spans BEGIN UPDATE spans SET a = 1; END",
            "CREATE TRIGGER t AFTER INSERT ON spans WHEN 'BEGIN' <> 1 BEGIN UPDATE spans SET a = 1; END",
        ] {
            assert!(harms(&[sql]), "{sql}");
        }
        assert!(
            harms(&[
                "CREATE TRIGGER a AFTER INSERT ON spans BEGIN INSERT INTO log VALUES (1); END",
                "CREATE TRIGGER b AFTER INSERT ON log BEGIN INSERT INTO log2 VALUES (1); END",
                "CREATE TRIGGER c AFTER INSERT ON log2 BEGIN INSERT INTO log SELECT 1; UPDATE spans SET a = 1; END",
            ]),
            "a chain"
        );
    }

    #[test]
    fn what_only_looks_on_is_not() {
        for sql in [
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN INSERT INTO log SELECT name FROM spans; END",
            "CREATE TRIGGER t BEFORE INSERT ON spans BEGIN SELECT RAISE(ABORT, 'no'); END",
            "CREATE TRIGGER t BEFORE INSERT ON spans BEGIN SELECT RAISE(FAIL, 'no'); END",
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN INSERT OR IGNORE INTO log VALUES (1); END",
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN SELECT 'RAISE', \"raise\", 'UPDATE spans'; END",
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN -- UPDATE spans SET a = 1\n SELECT 1; END",
            "CREATE TRIGGER t AFTER DELETE ON spans BEGIN DELETE FROM trace_info; END",
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN INSERT INTO n VALUES (1) ON CONFLICT DO UPDATE SET a = 1; END",
            "CREATE TRIGGER t AFTER INSERT ON spans BEGIN SELECT replace(name, 'a', 'b') FROM spans; END",
            "CREATE TRIGGER t AFTER INSERT ON other BEGIN UPDATE spans SET a = 1; END",
        ] {
            assert!(!harms(&[sql]), "{sql}");
        }
        assert!(
            !harms(&[
                "CREATE TRIGGER a AFTER INSERT ON spans BEGIN INSERT INTO log VALUES (1); END",
                "CREATE TRIGGER b AFTER INSERT ON log BEGIN UPDATE log SET a = 1; END",
            ]),
            "a ring that touches nothing of ours"
        );
    }

    #[test]
    fn text_that_ends_early_is_read_to_its_end() {
        for sql in [
            "'",
            "\"a",
            "[x",
            "/*",
            "--",
            "`",
            "''",
            "\u{e9}'\u{e9}",
            "-",
            "/",
        ] {
            tokens(sql);
        }
        assert_eq!(unquoted("'a''b'", '\''), "a'b");
    }
}
