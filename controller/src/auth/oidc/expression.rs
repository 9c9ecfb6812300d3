//! CEL expressions of an authentication configuration.
//!
//! They are the administrator's and see what an issuer has signed, at most as long as a token may be, so they are bounded by who writes
//! them; a stranger makes none run. What can be told before a token comes is told at the start: syntax, unknown variables and functions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, operators};
use kube_cel::cel::objects::{Key, Map, Value as Cel};
use kube_cel::cel::parser::{Expression as Tree, Parser};
use kube_cel::cel::{Context, ExecutionError};
use serde_json::Value;

/// Longer ones are refused, and deeper ones: who evaluates goes down into each level, on the stack of a request.
const LONGEST: usize = 4 << 10;
const DEEPEST: usize = 32;
/// Enough to parse the deepest that is no longer than that.
const PARSER_STACK: usize = 256 << 20;
const TOO_DEEP: &str = "is nested more than 32 levels deep: make it simpler";

/// An expression over one variable, ready to run.
pub(super) struct Expression {
    tree: Tree,
    /// The fields of the variable that it names.
    fields: BTreeSet<String>,
}

/// The variable that expressions see, as CEL has it, and the functions.
pub(super) struct Scope(Context<'static>);

impl Scope {
    pub fn new(variable: &str, value: &Value) -> Self {
        let mut context = Context::default().with_all();
        context.add_variable_from_value(variable.to_owned(), to_cel(value));
        Self(context)
    }
}

impl Expression {
    /// The error says what is wrong with it, in one line.
    pub fn compile(text: &str, variable: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is missing: write a CEL expression".to_owned());
        }
        if text.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes: make it simpler"));
        }
        // The library's parser has a frame for each level, and panics on some that are too deep.
        let read = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(PARSER_STACK);
            let parsing = builder.spawn_scoped(scope, || Self::parse(text, variable));
            parsing.ok().and_then(|parsing| parsing.join().ok())
        });
        read.unwrap_or_else(|| Err(TOO_DEEP.to_owned()))
    }

    fn parse(text: &str, variable: &str) -> Result<Self, String> {
        let parsed = Parser::default().enable_optional_syntax(true).parse(text);
        let mut tree = parsed.map_err(|error| {
            let error = error.to_string();
            format!("is no CEL expression: {}", error.lines().next().unwrap_or("it cannot be read"))
        })?;
        let functions = Context::default().with_all();
        let mut reader = Reader { variable, functions, fields: BTreeSet::new(), depth: 0 };
        reader.read(&mut tree, &mut Vec::new())?;
        let fields = reader.fields;
        Ok(Self { tree, fields })
    }

    /// True if it names this field of its variable.
    pub fn names(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// True if it is the boolean true; an error counts as false, since a rule that cannot be judged lets nobody in.
    pub fn holds(&self, scope: &Scope) -> bool {
        matches!(scope.0.resolve(&self.tree), Ok(Cel::Bool(true)))
    }

    /// What it gives, if that is a text.
    pub fn text(&self, scope: &Scope) -> Option<String> {
        match scope.0.resolve(&self.tree) {
            Ok(Cel::String(text)) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    /// The texts that it gives: a list of them, or one alone. Null and empty ones are none.
    pub fn texts(&self, scope: &Scope) -> Option<Vec<String>> {
        let mut texts = match scope.0.resolve(&self.tree).ok()? {
            Cel::Null => Vec::new(),
            Cel::String(text) => vec![text.as_str().to_owned()],
            Cel::List(entries) => {
                let text = |entry: &Cel| match entry {
                    Cel::String(text) => Some(text.as_str().to_owned()),
                    _ => None,
                };
                entries.iter().map(text).collect::<Option<_>>()?
            }
            _ => return None,
        };
        texts.retain(|text| !text.is_empty());
        Some(texts)
    }
}

/// Goes through an expression before it runs.
struct Reader<'a> {
    variable: &'a str,
    functions: Context<'static>,
    fields: BTreeSet<String>,
    depth: usize,
}

impl Reader<'_> {
    /// `bound` are the variables of the macros around it.
    fn read(&mut self, tree: &mut Tree, bound: &mut Vec<String>) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TOO_DEEP.to_owned());
        }
        let read = self.read_one(tree, bound);
        self.depth -= 1;
        read
    }

    fn read_one(&mut self, tree: &mut Tree, bound: &mut Vec<String>) -> Result<(), String> {
        match &mut tree.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if name == self.variable || bound.contains(name) => Ok(()),
            Expr::Ident(name) => {
                Err(format!("names `{name}`, which is not there: it sees `{}` alone", self.variable))
            }
            Expr::Select(select) => {
                self.note(&select.operand, &select.field);
                self.read(&mut select.operand, bound)
            }
            Expr::Call(call) => self.read_call(call, bound),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.read(element, bound)),
            Expr::Map(map) => self.read_entries(&mut map.entries, bound),
            Expr::Struct(made) => self.read_entries(&mut made.entries, bound),
            Expr::Comprehension(each) => {
                self.read(&mut each.iter_range, bound)?;
                self.read(&mut each.accu_init, bound)?;
                let outside = bound.len();
                bound.extend([each.iter_var.clone(), each.accu_var.clone()]);
                bound.extend(each.iter_var2.clone());
                let inside = [&mut each.loop_cond, &mut each.loop_step, &mut each.result];
                let read = inside.into_iter().try_for_each(|part| self.read(part, bound));
                bound.truncate(outside);
                read
            }
        }
    }

    fn read_call(&mut self, call: &mut CallExpr, bound: &mut Vec<String>) -> Result<(), String> {
        if let [of, field] = call.args.as_slice()
            && let Expr::Literal(LiteralValue::String(field)) = &field.expr
        {
            self.note(of, field.inner());
        }
        // The library fails where `a.?b` finds nothing, and not where `a[?"b"]` does, which means the same.
        if call.func_name == operators::OPT_SELECT {
            operators::OPT_INDEX.clone_into(&mut call.func_name);
        }
        let name = &call.func_name;
        let qualified = match call.target.as_deref() {
            Some(Tree { expr: Expr::Ident(prefix), .. }) => Some(format!("{prefix}.{name}")),
            _ => None,
        };
        let is_qualified = qualified.is_some_and(|name| self.is_function(&name));
        let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !is_qualified && !is_operator && !self.is_function(name) {
            return Err(format!("calls `{name}`, which is no function here"));
        }
        if !is_qualified && let Some(target) = &mut call.target {
            self.read(target, bound)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.read(argument, bound))
    }

    fn read_entries(&mut self, entries: &mut [IdedEntryExpr], bound: &mut Vec<String>) -> Result<(), String> {
        entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
            EntryExpr::StructField(field) => self.read(&mut field.value, bound),
            EntryExpr::MapEntry(entry) => {
                self.read(&mut entry.key, bound)?;
                self.read(&mut entry.value, bound)
            }
        })
    }

    /// Remembers a field that is taken of the variable itself.
    fn note(&mut self, of: &Tree, field: &str) {
        if matches!(&of.expr, Expr::Ident(name) if name == self.variable) {
            self.fields.insert(field.to_owned());
        }
    }

    /// Calling a function without arguments fails in another way if there is none of that name.
    fn is_function(&self, name: &str) -> bool {
        let call = CallExpr { func_name: name.to_owned(), target: None, args: Vec::new() };
        let called = self.functions.resolve(&Tree { id: 0, expr: Expr::Call(call) });
        !matches!(called, Err(ExecutionError::UndeclaredReference(_)))
    }
}

/// Whole numbers are integers in CEL, and keys are what they are.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(is) => Cel::Bool(*is),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(entries) => Cel::List(Arc::new(entries.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), to_cel(value)));
            Cel::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> Scope {
        Scope::new(
            "claims",
            &json!({
            "sub": "ada", "exp": 1_000, "iat": 400, "roles": ["dev", "ops"], "a.b": "dotted", "empty": [],
            "nested": {"team": "red"}, "verified": true, "mixed": ["a", 1]}),
        )
    }

    fn compiled(text: &str) -> Expression {
        Expression::compile(text, "claims").unwrap_or_else(|error| panic!("{text} {error}"))
    }

    #[test]
    fn what_an_expression_gives_is_taken_by_its_type() {
        let text = |text: &str| compiled(text).text(&scope());
        assert_eq!(text("'x:' + claims.sub").as_deref(), Some("x:ada"));
        assert_eq!(text("claims['a.b']").as_deref(), Some("dotted"));
        assert_eq!(text("claims.nested.team.upperAscii()").as_deref(), Some("RED"));
        assert_eq!(text("claims.?absent.orValue('none')").as_deref(), Some("none"));
        assert_eq!(text("claims.?nested.?team.orValue('none')").as_deref(), Some("red"));
        assert_eq!(text("claims.?nested.?absent.orValue('none')").as_deref(), Some("none"));
        assert_eq!(text("claims.?absent.?team.orValue('none')").as_deref(), Some("none"));
        assert_eq!(text("claims.exp"), None);
        assert_eq!(text("claims.absent"), None);

        let texts = |text: &str| compiled(text).texts(&scope());
        assert_eq!(texts("claims.roles.map(role, 'x:' + role)"), Some(vec!["x:dev".into(), "x:ops".into()]));
        assert_eq!(texts("claims.sub"), Some(vec!["ada".into()]));
        for none in ["claims.empty", "''", "null", "['']", "claims.roles.filter(role, role == 'x')"] {
            assert_eq!(texts(none), Some(Vec::new()), "{none}");
        }
        for wrong in ["claims.mixed", "claims.exp", "claims.absent", "claims.nested"] {
            assert_eq!(texts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_is_true_holds() {
        for holds in [
            "claims.exp - claims.iat <= 600",
            "claims.verified",
            "has(claims.sub) && !has(claims.absent)",
            "claims.roles.exists(role, role == 'ops') && claims.roles.all(role, role.size() == 3)",
            "sets.contains(claims.roles, ['ops'])",
            "claims.sub.matches('^a[a-z]+$') && claims.sub in ['ada']",
        ] {
            assert!(compiled(holds).holds(&scope()), "{holds}");
        }
        for no in ["false", "claims.sub", "claims.absent", "claims.sub > 3", "1"] {
            assert!(!compiled(no).holds(&scope()), "{no}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_before_a_token_comes() {
        let why = |text: &str| Expression::compile(text, "claims").err().unwrap_or_default();
        insta::assert_snapshot!(why("user.username"), @"names `user`, which is not there: it sees `claims` alone");
        insta::assert_snapshot!(why("claims.roles.map(role, rule)"), @"names `rule`, which is not there: it sees `claims` alone");
        insta::assert_snapshot!(why("claims.sub.startWith('a')"), @"calls `startWith`, which is no function here");
        insta::assert_snapshot!(why("isMember(claims)"), @"calls `isMember`, which is no function here");
        assert!(why("claims.").starts_with("is no CEL expression: "));
        assert!(why("").starts_with("is missing"));
        assert!(why(&"1+".repeat(5_000)).starts_with("is longer than"));
        for tower in ["(", "[", "{1:", "!(", "claims[", "size("] {
            assert!(why(&tower.repeat(500)).starts_with("is n"), "{tower}");
        }
        // Whatever is said of these, they do not end the process.
        for tower in ["1+", "!", "-", "claims.a.", "true?1:", "a&&", "a.b(1)."] {
            for times in [20, 31, 64, LONGEST / tower.len() - 1] {
                let text = format!("{}1", tower.repeat(times));
                let _ = Expression::compile(&text, "claims").map(|expression| expression.holds(&scope()));
            }
        }
        assert!(why(&format!("{}1", "1+".repeat(40))).contains("levels deep"));
    }

    #[test]
    fn the_claims_that_it_names_are_known_however_they_are_written() {
        for text in
            ["claims.email", "claims['email']", "claims.?email.orValue('')", "claims[?'email'].orValue('')"]
        {
            assert!(compiled(text).names("email"), "{text}");
        }
        assert!(!compiled("claims.nested.email").names("email"));
    }
}
