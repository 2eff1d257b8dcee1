//! What a database contains, as the catalogs tell it: tables, columns, constraints, indexes, triggers, functions,
//! views, sequences and types, each with the properties by which two of them are compared.

use std::collections::{BTreeMap, BTreeSet};

use agentkeep_core::Result;

use super::lexer::{self, Kind, Token};
use crate::engine::{Dedicated, Dialect, Sql};

/// A thing in a database: its kind, the table it belongs to (empty when it stands alone), its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) table: String,
    pub(super) name: String,
}

impl Object {
    /// Its name for people: `column users.email`.
    pub(super) fn title(&self) -> String {
        match (self.kind.as_str(), self.table.as_str()) {
            (kind, "") => format!("{kind} {}", self.name),
            ("column", table) => format!("column {table}.{}", self.name),
            (kind, table) => format!("{kind} {} of table {table}", self.name),
        }
    }
}

/// The properties of an object, by name.
pub(super) type Properties = BTreeMap<String, String>;

/// Everything there is in one schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Catalog(pub(super) BTreeMap<Object, Properties>);

impl Catalog {
    /// The names of the objects of a kind that belong to no table.
    pub(super) fn names(&self, kind: &str) -> BTreeSet<String> {
        self.0
            .keys()
            .filter(|object| object.kind == kind && object.table.is_empty())
            .map(|one| one.name.clone())
            .collect()
    }

    fn add(&mut self, kind: &str, table: &str, name: &str, property: &str, value: String) {
        let object = Object { kind: kind.to_owned(), table: table.to_owned(), name: name.to_owned() };
        self.0.entry(object).or_default().insert(property.to_owned(), value);
    }
}

/// The differences between what should be and what is, in words. Objects that stand alone and are not expected
/// belong to somebody else and are no difference.
pub(super) fn differences(expected: &Catalog, found: &Catalog) -> Vec<String> {
    let tables = expected.names("table");
    let mut words = Vec::new();
    for (object, wanted) in &expected.0 {
        match found.0.get(object) {
            // A missing table says it all: its columns need not be listed too.
            None if !object.table.is_empty() && !found.names("table").contains(&object.table) => {}
            None => words.push(format!("{} is missing", object.title())),
            Some(properties) => words.extend(changed(object, wanted, properties)),
        }
    }
    words.extend(
        found
            .0
            .keys()
            .filter(|object| !expected.0.contains_key(object) && tables.contains(&object.table))
            .map(|object| format!("{} is in the database, but no migration made it", object.title())),
    );
    words
}

fn changed(object: &Object, wanted: &Properties, found: &Properties) -> Vec<String> {
    let names: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let show = |value: Option<&String>| value.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
    let differ: Vec<(&str, String)> = names
        .into_iter()
        .filter(|name| wanted.get(*name) != found.get(*name))
        .map(|name| {
            let (found, wanted) = (show(found.get(name)), show(wanted.get(name)));
            (name.as_str(), format!("{}: {name} is {found}, expected {wanted}", object.title()))
        })
        .collect();
    // The whole text differs with every part of it; it is told only when no part tells more.
    let only_text = differ.iter().all(|(name, _)| *name == "definition");
    differ.into_iter().filter(|(name, _)| only_text || *name != "definition").map(|(_, words)| words).collect()
}

/// Kind, table, name, property, value of everything. Differs by necessity: the catalogs. The pretty forms of
/// PostgreSQL's functions leave out the schema of what the search path finds, so the same objects in another schema
/// read the same. What belongs to an extension is not ours.
static EVERYTHING: Sql = Sql::per_engine(
    r#"WITH place AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()),
    extension AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
    relation AS (
        SELECT c.* FROM pg_catalog.pg_class c JOIN place ON place.oid = c.relnamespace
        WHERE NOT EXISTS (SELECT FROM extension e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)),
    tables AS (SELECT * FROM relation WHERE relkind IN ('r', 'p')),
    found (kind, owner, name, property, value) AS (
        SELECT 'table', '', t.relname::text, p.property, p.value FROM tables t CROSS JOIN LATERAL (VALUES
            ('partitioned by', pg_get_partkeydef(t.oid)),
            ('partition of', (SELECT i.inhparent::regclass::text FROM pg_catalog.pg_inherits i
                WHERE i.inhrelid = t.oid) || ' ' || pg_get_expr(t.relpartbound, t.oid)),
            ('row security', CASE WHEN t.relrowsecurity THEN 'on' END),
            ('kind', 'table')) p (property, value)
        UNION ALL
        SELECT 'column', t.relname::text, a.attname::text, p.property, p.value
        FROM tables t
        JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
        CROSS JOIN LATERAL (VALUES
            ('type', format_type(a.atttypid, a.atttypmod)),
            ('nullability', CASE WHEN a.attnotnull THEN 'NOT NULL' ELSE 'NULL' END),
            (CASE WHEN a.attgenerated = '' THEN 'default' ELSE 'generated as' END, pg_get_expr(d.adbin, t.oid, true)),
            ('identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END),
            ('collation', (SELECT c.collname::text FROM pg_catalog.pg_collation c
                JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
                WHERE c.oid = a.attcollation AND a.attcollation <> y.typcollation))) p (property, value)
        UNION ALL
        SELECT 'constraint', t.relname::text, c.conname::text, 'definition', pg_get_constraintdef(c.oid, true)
        FROM tables t JOIN pg_catalog.pg_constraint c ON c.conrelid = t.oid AND c.contype IN ('c', 'f', 'p', 'u', 'x')
        UNION ALL
        SELECT 'index', t.relname::text, c.relname::text, p.property, p.value
        FROM tables t
        JOIN pg_catalog.pg_index i ON i.indrelid = t.oid
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        CROSS JOIN LATERAL (VALUES
            ('definition', pg_get_indexdef(i.indexrelid, 0, true)),
            ('valid', CASE WHEN i.indisvalid THEN 'yes' ELSE 'no' END)) p (property, value)
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
            WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
        UNION ALL
        SELECT 'trigger', t.relname::text, g.tgname::text, p.property, p.value
        FROM tables t
        JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
        CROSS JOIN LATERAL (VALUES
            ('definition', pg_get_triggerdef(g.oid, true)),
            ('enabled', CASE g.tgenabled WHEN 'D' THEN 'no' ELSE 'yes' END)) p (property, value)
        UNION ALL
        SELECT 'policy', t.relname::text, l.polname::text, 'definition',
            concat_ws(' ', l.polcmd::text, pg_get_expr(l.polqual, t.oid, true), pg_get_expr(l.polwithcheck, t.oid, true))
        FROM tables t JOIN pg_catalog.pg_policy l ON l.polrelid = t.oid
        UNION ALL
        SELECT 'function', '', format('%I(%s)', f.proname, pg_get_function_identity_arguments(f.oid)), p.property, p.value
        FROM pg_catalog.pg_proc f
        JOIN place ON place.oid = f.pronamespace
        JOIN pg_catalog.pg_language l ON l.oid = f.prolang
        CROSS JOIN LATERAL (VALUES
            ('arguments', pg_get_function_arguments(f.oid)),
            ('result', pg_get_function_result(f.oid)),
            ('language', l.lanname::text),
            ('attributes', concat_ws(' ', f.prokind::text, f.provolatile::text, f.proparallel::text,
                CASE WHEN f.proisstrict THEN 'strict' END, CASE WHEN f.prosecdef THEN 'security definer' END,
                array_to_string(f.proconfig, ' '))),
            ('body', coalesce(pg_get_function_sqlbody(f.oid), f.prosrc))) p (property, value)
        WHERE NOT EXISTS (SELECT FROM extension e WHERE e.classid = 'pg_proc'::regclass AND e.objid = f.oid)
        UNION ALL
        SELECT CASE r.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, '', r.relname::text, 'definition',
            pg_get_viewdef(r.oid, true)
        FROM relation r WHERE r.relkind IN ('v', 'm')
        UNION ALL
        SELECT 'sequence', '', r.relname::text, 'type', format_type(s.seqtypid, NULL)
        FROM relation r JOIN pg_catalog.pg_sequence s ON s.seqrelid = r.oid
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend o
            WHERE o.classid = 'pg_class'::regclass AND o.objid = r.oid AND o.deptype IN ('a', 'i'))
        UNION ALL
        SELECT 'type', '', y.typname::text, 'definition', concat_ws(' ',
            y.typtype::text,
            (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e
                WHERE e.enumtypid = y.oid),
            CASE WHEN y.typtype = 'd' THEN format_type(y.typbasetype, y.typtypmod) END,
            (SELECT string_agg(pg_get_constraintdef(k.oid, true), ' ' ORDER BY k.conname)
                FROM pg_catalog.pg_constraint k WHERE k.contypid = y.oid),
            (SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a WHERE a.attrelid = y.typrelid AND NOT a.attisdropped))
        FROM pg_catalog.pg_type y JOIN place ON place.oid = y.typnamespace
        LEFT JOIN pg_catalog.pg_class c ON c.oid = y.typrelid
        WHERE (y.typtype IN ('e', 'd') OR (y.typtype = 'c' AND c.relkind = 'c'))
            AND NOT EXISTS (SELECT FROM extension e WHERE e.classid = 'pg_type'::regclass AND e.objid = y.oid))
    SELECT kind, owner, name, property, value FROM found WHERE value IS NOT NULL"#,
    r#"WITH ours AS (
        SELECT s.name, s.sql, t.type FROM sqlite_schema s
        JOIN pragma_table_list t ON t.name = s.name AND t.schema = 'main'
        WHERE s.type = 'table' AND t.type IN ('table', 'virtual') AND s.name NOT LIKE 'sqlite\_%' ESCAPE '\')
    SELECT 'table', '', name, type, sql FROM ours
    UNION ALL
    SELECT 'column', o.name, c.name, p.property, CAST(CASE p.property
        WHEN 'type' THEN c.type
        WHEN 'nullability' THEN iif(c."notnull", 'NOT NULL', 'NULL')
        WHEN 'default' THEN c.dflt_value
        WHEN 'generated' THEN nullif(c.hidden, 0)
        ELSE nullif(c.pk, 0) END AS TEXT) AS value
    FROM ours o
    JOIN pragma_table_xinfo(o.name) c
    JOIN (SELECT 'type' AS property UNION ALL SELECT 'nullability' UNION ALL SELECT 'default'
        UNION ALL SELECT 'generated' UNION ALL SELECT 'place in the primary key') p
    WHERE value IS NOT NULL
    UNION ALL
    SELECT s.type, CASE WHEN s.type = 'view' THEN '' ELSE s.tbl_name END, s.name, 'definition', s.sql
    FROM sqlite_schema s WHERE s.type IN ('index', 'trigger', 'view') AND s.sql IS NOT NULL"#,
);

/// Reads everything there is in the current schema.
pub(super) async fn read(connection: &Dedicated, dialect: Dialect) -> Result<Catalog> {
    let rows: Vec<(String, String, String, String, String)> = connection.fetch_all(&EVERYTHING, &[]).await?;
    let mut catalog = Catalog::default();
    for (kind, table, name, property, value) in rows {
        match (kind.as_str(), property.as_str()) {
            // SQLite keeps a table as the text that made it.
            ("table", "table") => add_table_text(&mut catalog, &name, &value),
            ("table", "virtual") => catalog.add("table", "", &name, "definition", lexer::normal_form(&value, dialect)),
            (kind, "definition") if dialect.pick(false, true) => {
                catalog.add(kind, &table, &name, "definition", lexer::normal_form(&value, dialect));
            }
            (kind, property) => catalog.add(kind, &table, &name, property, value),
        }
    }
    Ok(catalog)
}

/// Takes `CREATE TABLE … (column …, constraint …) options` apart: SQLite has no catalog of CHECK constraints.
fn add_table_text(catalog: &mut Catalog, table: &str, text: &str) {
    let dialect = Dialect::Sqlite;
    let Ok(tokens) = lexer::tokens(text, dialect) else { return };
    let mut parts: Vec<Vec<Token<'_>>> = vec![Vec::new()];
    let (mut depth, mut options) = (0_usize, 0);
    for token in tokens {
        match token.text {
            ")" if depth == 1 => options = token.at + 1,
            "," if depth == 1 => parts.push(Vec::new()),
            _ if depth >= 1 && options == 0 => {
                if let Some(part) = parts.last_mut() {
                    part.push(token);
                }
            }
            _ => {}
        }
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    catalog.add("table", "", table, "options", lexer::normal_form(&text[options..], dialect));
    for part in parts {
        let mut words = part.iter().filter(|token| token.kind != Kind::Blank);
        let Some(first) = words.next() else { continue };
        let whole: String = part.iter().map(|token| token.text).collect();
        let definition = lexer::normal_form(&whole, dialect);
        if first.is_word("CONSTRAINT") {
            let name = words.next().map_or("", |token| unquoted(token.text));
            catalog.add("constraint", table, name, "definition", definition);
        } else if ["PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].iter().any(|word| first.is_word(word)) {
            // Without a name its text is its name.
            catalog.add("constraint", table, &definition, "kind", first.text.to_ascii_uppercase());
        } else {
            catalog.add("column", table, unquoted(first.text), "definition", definition);
        }
    }
}

fn unquoted(name: &str) -> &str {
    name.trim_matches(['"', '`', '[', ']', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Catalog {
        let mut catalog = Catalog::default();
        add_table_text(&mut catalog, "t", text);
        catalog
    }

    const TEXT: &str = "CREATE TABLE t (id INTEGER, \"a b\" TEXT DEFAULT (coalesce(1, 2)), -- words, more words\n \
                        PRIMARY KEY (id), CONSTRAINT short CHECK (length(\"a b\") < 5)) STRICT";

    #[test]
    fn the_text_of_a_table_is_taken_apart() {
        let titles: Vec<String> = table(TEXT).0.keys().map(Object::title).collect();
        assert_eq!(
            titles,
            [
                "column t.a b",
                "column t.id",
                "constraint PRIMARY KEY(id) of table t",
                "constraint short of table t",
                "table t",
            ]
        );
    }

    #[test]
    fn differences_are_told_in_words() {
        let changed = TEXT.replace("(1, 2)", "(1, 3)").replace("PRIMARY KEY (id), ", "").replace(" STRICT", "");
        let words = differences(&table(TEXT), &table(&changed));
        assert_eq!(words.len(), 3, "{words:?}");
        assert!(words[0].starts_with("column t.a b: definition is"), "{words:?}");
        assert_eq!(words[1], "constraint PRIMARY KEY(id) of table t is missing");
        assert_eq!(words[2], "table t: options is ``, expected `STRICT`");
        assert!(differences(&table(TEXT), &table(&TEXT.replace("  ", " "))).is_empty());
    }

    #[test]
    fn a_missing_table_is_told_once_and_a_foreign_one_not_at_all() {
        assert_eq!(differences(&table(TEXT), &Catalog::default()), ["table t is missing"]);
        assert!(differences(&Catalog::default(), &table(TEXT)).is_empty());
    }
}
