//! CEL expressions over one variable: compiled before they are needed, in bounded time, then run as often as is wanted.
//!
//! What can be told before there is a value is told when an expression is compiled: syntax, unknown variables and functions. What an
//! expression costs is bounded where it is compiled for a [`Shape`], else only by who may write it.

mod cost;
#[cfg(test)]
mod properties;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, operators};
use kube_cel::cel::objects::{Key, Map, Value as Cel};
use kube_cel::cel::parser::{Expression as Tree, Parser};
use kube_cel::cel::{Context, ExecutionError};
use serde_json::Value;

pub(crate) use shape::Shape;

/// Longer ones are refused, and deeper ones: who evaluates goes down into each level, on the stack of a request.
const LONGEST: usize = 4 << 10;
const DEEPEST: usize = 32;
/// Enough to parse the deepest that is no longer than that.
const PARSER_STACK: usize = 256 << 20;
const TOO_DEEP: &str = "is nested more than 32 levels deep: make it simpler";

/// An expression over one variable, ready to run.
pub(crate) struct Expression {
    tree: Tree,
    /// The fields of the variable that it names.
    fields: BTreeSet<String>,
    /// What running it costs at most, where it was compiled for a shape.
    cost: u64,
}

/// The variable that expressions see, as CEL has it, and the functions.
pub(crate) struct Scope(Context<'static>);

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

    /// As [`Expression::compile`], for a variable of this shape: also what names a field that is not there is refused, and what could cost
    /// more than `most`.
    pub fn compile_for(text: &str, variable: &str, shape: &'static Shape, most: u64) -> Result<Self, String> {
        let expression = Self::compile(text, variable)?;
        let cost = cost::of(&expression.tree, variable, shape)?;
        if cost > most {
            let times = cost.div_ceil(most.max(1));
            return Err(format!(
                "could cost {times} times as much as an expression may: loop less, or over less"
            ));
        }
        Ok(Self { cost, ..expression })
    }

    /// What running it costs at most: about the bytes it copies and compares. 0 where it was not compiled for a shape.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    fn parse(text: &str, variable: &str) -> Result<Self, String> {
        let parsed = Parser::default().enable_optional_syntax(true).parse(text);
        let mut tree = parsed.map_err(|error| {
            let error = error.to_string();
            if error.contains("Recursion limit") {
                return TOO_DEEP.to_owned();
            }
            format!("is no CEL expression: {}", error.lines().next().unwrap_or("it cannot be read"))
        })?;
        let functions = Context::default().with_all();
        let mut reader = Reader { variable, functions, fields: BTreeSet::new(), depth: 0 };
        reader.read(&mut tree, &mut Vec::new())?;
        let fields = reader.fields;
        Ok(Self { tree, fields, cost: 0 })
    }

    /// True if it names this field of its variable.
    pub fn names(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// True if it is the boolean true; an error counts as false, since a rule that cannot be judged lets nobody in.
    pub fn holds(&self, scope: &Scope) -> bool {
        matches!(scope.0.resolve(&self.tree), Ok(Cel::Bool(true)))
    }

    /// As [`Expression::holds`]; where it is not true or false, an error says why in one line.
    pub fn judge(&self, scope: &Scope) -> Result<bool, String> {
        // The library has places where it panics, and one expression must not take down what others say.
        let run = std::panic::AssertUnwindSafe(|| scope.0.resolve(&self.tree));
        match std::panic::catch_unwind(run) {
            Ok(Ok(Cel::Bool(is))) => Ok(is),
            Ok(Ok(_)) => Err("it gives neither true nor false".to_owned()),
            Ok(Err(error)) => Err(told(&error)),
            Err(_) => Err("the evaluator met a bug".to_owned()),
        }
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

/// Without the values, which may be long.
fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) | ExecutionError::UndeclaredReference(name) => {
            format!("there is no `{name}`")
        }
        ExecutionError::FunctionError { function, .. } => format!("`{function}` cannot do this"),
        ExecutionError::IndexOutOfBounds(_) => "an index is beyond the end of its list".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        _ => "its types do not fit".to_owned(),
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
            // The library panics on them.
            Expr::Struct(_) => Err("makes a message, and there are none here".to_owned()),
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
