//! What an expression may cost at most, worked out before it runs: the library has no limit of its own, and a loop in a loop over what
//! a caller sends, or a text that doubles a few times, would keep a thread for hours.
//!
//! Everything is counted in bytes that are copied or compared, and upwards: where two things are possible, the larger counts.

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression as Tree;

use super::shape::{NODE, Shape};

/// Loops inside of loops.
const MOST_LOOPS: usize = 4;
/// Longest pattern, and how often its repetitions may repeat it.
const LONGEST_PATTERN: usize = 256;
const MOST_REPETITIONS: u64 = 512;
/// What it costs to compile a pattern, which is done at each call: at least, for each byte, and for each class as `\w`, which has all of
/// Unicode in it.
const PATTERN: u64 = 64 << 10;
const PATTERN_BYTE: u64 = 1 << 10;
const PATTERN_CLASS: u64 = 256 << 10;

/// What the expression costs at most, over a variable of that shape; the error says what is refused whatever it costs.
pub(super) fn of(tree: &Tree, variable: &str, shape: &'static Shape) -> Result<u64, String> {
    let mut meter = Meter { known: vec![(variable.to_owned(), Size::Of(shape))], loops: 0 };
    Ok(meter.measure(tree)?.cost)
}

/// The most that a value is.
#[derive(Clone, Copy)]
enum Size {
    Of(&'static Shape),
    /// So many entries of at most this weight.
    List(u64, u64),
    /// Anything of that weight.
    Any(u64),
}

impl Size {
    fn weight(self) -> u64 {
        match self {
            Self::Of(shape) => shape.weight(),
            Self::List(count, each) => NODE.saturating_add(count.saturating_mul(each)),
            Self::Any(weight) => weight,
        }
    }

    /// How many entries there are to loop over, and what each is.
    fn entries(self) -> (u64, Self) {
        match self {
            Self::Of(Shape::List(most, entry)) => (*most as u64, Self::Of(entry)),
            Self::Of(Shape::Map { entries, name, .. }) => (*entries as u64, Self::Any(NODE + *name as u64)),
            Self::List(count, each) => (count, Self::Any(each)),
            other => (other.weight() / NODE, other),
        }
    }

    /// What is under an index that is not the name of a field.
    fn entry(self) -> Self {
        match self {
            Self::Of(Shape::Map { value, .. }) => Self::Any(NODE + *value as u64),
            other => other.entries().1,
        }
    }

    fn or(self, other: Self) -> Self {
        if self.weight() >= other.weight() { self } else { other }
    }
}

/// The most that a part of an expression gives and costs.
#[derive(Clone, Copy)]
struct Measure {
    size: Size,
    cost: u64,
}

const TRUTH: Size = Size::Any(NODE);

struct Meter {
    known: Vec<(String, Size)>,
    loops: usize,
}

impl Meter {
    fn measure(&mut self, tree: &Tree) -> Result<Measure, String> {
        match &tree.expr {
            Expr::Unspecified => Ok(Measure { size: TRUTH, cost: NODE }),
            Expr::Literal(literal) => {
                let length = match literal {
                    LiteralValue::String(text) => text.inner().len(),
                    LiteralValue::Bytes(bytes) => bytes.inner().len(),
                    _ => 0,
                };
                let weight = NODE.saturating_add(length as u64);
                Ok(Measure { size: Size::Any(weight), cost: weight })
            }
            Expr::Ident(name) => {
                let known = self.known.iter().rev().find(|(known, _)| known == name);
                Ok(Measure { size: known.map_or(TRUTH, |(_, size)| *size), cost: NODE })
            }
            Expr::Select(select) => {
                let of = self.measure(&select.operand)?;
                let mut taken = take(of, Some(&select.field))?;
                if select.test {
                    taken = Measure { size: TRUTH, cost: of.cost.saturating_add(NODE) };
                }
                Ok(taken)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let parts = self.all(&list.elements)?;
                let largest = parts.iter().map(|part| part.size.weight()).max().unwrap_or(0);
                Ok(made(Size::List(parts.len() as u64, largest), &parts))
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(made) => self.entries(made.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(each) => self.each(each),
        }
    }

    fn all<'a>(&mut self, trees: impl IntoIterator<Item = &'a Tree>) -> Result<Vec<Measure>, String> {
        trees.into_iter().map(|tree| self.measure(tree)).collect()
    }

    fn entries<'a>(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Result<Measure, String> {
        let trees = entries.flat_map(|entry| match entry {
            EntryExpr::StructField(field) => vec![&field.value],
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        });
        let parts = self.all(trees)?;
        let weight = parts.iter().fold(NODE, |all, part| all.saturating_add(part.size.weight()));
        Ok(made(Size::Any(weight), &parts))
    }

    /// A macro: what is gathered grows by the same with each entry.
    fn each(&mut self, each: &ComprehensionExpr) -> Result<Measure, String> {
        if self.loops == MOST_LOOPS {
            return Err(format!("loops more than {MOST_LOOPS} levels deep: make it simpler"));
        }
        self.loops += 1;
        let range = self.measure(&each.iter_range)?;
        let start = self.measure(&each.accu_init)?;
        let (count, entry) = range.size.entries();
        let outside = self.known.len();
        let names = [Some(&each.iter_var), each.iter_var2.as_ref()];
        self.known.extend(names.into_iter().flatten().map(|name| (name.clone(), entry)));
        self.known.push((each.accu_var.clone(), start.size));
        let first = self.measure(&each.loop_step)?;
        // What a turn costs on the average, halfway; what comes out of it at the end.
        self.gathers(grown(start.size, first.size, count / 2));
        let turns = self.all([&each.loop_cond, &each.loop_step])?;
        let gathered = turns.last().map_or(0, |step| step.size.weight());
        self.gathers(grown(start.size, first.size, count));
        let result = self.measure(&each.result)?;
        self.known.truncate(outside);
        self.loops -= 1;
        let turn = sum(&turns).saturating_add(entry.weight()).saturating_add(gathered);
        let cost = sum(&[range, start, result])
            .saturating_add(range.size.weight())
            .saturating_add(count.saturating_mul(turn))
            .saturating_add(result.size.weight());
        Ok(Measure { size: result.size, cost })
    }

    fn gathers(&mut self, gathered: Size) {
        if let Some((_, size)) = self.known.last_mut() {
            *size = gathered;
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Measure, String> {
        // Of a number it makes a list that is as long, whatever the name before it means here.
        if call.func_name == "range" {
            return Err("calls `lists.range`, which is not allowed here".to_owned());
        }
        let mut parts = Vec::new();
        match call.target.as_deref() {
            // The first half of a function's name, as `sets`.
            Some(Tree { expr: Expr::Ident(name), .. })
                if !self.known.iter().any(|(known, _)| known == name) => {}
            Some(target) => parts.push(self.measure(target)?),
            None => {}
        }
        parts.extend(self.all(&call.args)?);
        let weights = || parts.iter().map(|part| part.size.weight());
        let total = weights().fold(0, u64::saturating_add);
        let literal = call.args.last().and_then(text);
        Ok(match (call.func_name.as_str(), parts.as_slice()) {
            (operators::CONDITIONAL, [_, one, other]) => {
                Measure { size: one.size.or(other.size), cost: sum(&parts) }
            }
            ("orValue", [one, other]) => read(one.size.or(other.size), &parts),
            (operators::INDEX | operators::OPT_INDEX, [of, index]) => {
                let taken = take(*of, literal)?;
                Measure {
                    cost: taken.cost.saturating_add(index.cost).saturating_add(of.size.weight()),
                    ..taken
                }
            }
            (operators::ADD, [one, other]) => made(sum_of(one.size, other.size), &parts),
            (operator, _) if !operator.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                read(TRUTH, &parts)
            }
            ("size" | "contains" | "startsWith" | "endsWith" | "hasValue", _) => {
                Measure { size: TRUTH, cost: sum(&parts).saturating_add(total.saturating_mul(4)) }
            }
            ("matches" | "find" | "findAll", [of, ..]) => {
                let (compiling, steps) = pattern(literal.or_else(|| call.args.first().and_then(text)))?;
                let cost = compiling.saturating_add(of.size.weight().saturating_mul(steps));
                let size = if call.func_name == "findAll" { pieces(of.size) } else { of.size };
                Measure { size, cost: sum(&parts).saturating_add(cost).saturating_add(size.weight()) }
            }
            ("split", [of, ..]) => read(pieces(of.size), &parts),
            // Whatever is between two letters may be replaced.
            ("replace", [of, ..]) => {
                let (most, of) = (weights().max().unwrap_or(0), of.size.weight());
                read(Size::Any(of.saturating_mul(most)), &parts)
            }
            ("join", [of, ..]) => read(Size::Any(total.saturating_mul(of.size.weight() / NODE + 1)), &parts),
            _ => {
                let most = weights().max().unwrap_or(0);
                let pairs = total.saturating_mul(most) / NODE;
                let size = Size::Any(total.saturating_mul(8).saturating_add(8 * NODE));
                Measure { size, cost: sum(&parts).saturating_add(pairs).saturating_add(size.weight()) }
            }
        })
    }
}

/// What is taken out of something by name or number.
fn take(of: Measure, name: Option<&str>) -> Result<Measure, String> {
    let size = match (of.size, name) {
        (Size::Of(shape @ (Shape::Fields(_) | Shape::Scalar | Shape::Text(_))), Some(name)) => {
            Size::Of(shape.field(name)?)
        }
        (size, _) => size.entry(),
    };
    Ok(Measure { size, cost: of.cost.saturating_add(size.weight()) })
}

/// What is made of parts.
fn made(size: Size, parts: &[Measure]) -> Measure {
    Measure { size, cost: sum(parts).saturating_add(size.weight()) }
}

/// What is worked out by reading parts to their ends.
fn read(size: Size, parts: &[Measure]) -> Measure {
    let made = made(size, parts);
    let cost = parts.iter().fold(made.cost, |all, part| all.saturating_add(part.size.weight()));
    Measure { cost, ..made }
}

fn sum(parts: &[Measure]) -> u64 {
    parts.iter().fold(NODE, |all, part| all.saturating_add(part.cost))
}

fn sum_of(one: Size, other: Size) -> Size {
    let list = |size: Size| match size {
        Size::List(count, each) => Some((count, each)),
        Size::Of(Shape::List(..)) => Some((size.entries().0, size.entry().weight())),
        _ => None,
    };
    match (list(one), list(other)) {
        (Some((count, each)), Some((more, other))) => Size::List(count.saturating_add(more), each.max(other)),
        _ => Size::Any(one.weight().saturating_add(other.weight())),
    }
}

/// What is gathered after so many turns, if the first makes this of the beginning.
fn grown(start: Size, first: Size, turns: u64) -> Size {
    if let (Size::List(before, one), Size::List(after, other)) = (start, first) {
        let more = after.saturating_sub(before).saturating_mul(turns);
        return Size::List(before.saturating_add(more), one.max(other));
    }
    let more = first.weight().saturating_sub(start.weight()).saturating_mul(turns);
    Size::Any(start.weight().max(first.weight()).saturating_add(more))
}

/// A text in pieces, at worst each letter one.
fn pieces(of: Size) -> Size {
    Size::List(of.weight(), NODE + 4)
}

fn text(tree: &Tree) -> Option<&str> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// What it costs to compile a pattern, and then to look at each byte of a text.
fn pattern(pattern: Option<&str>) -> Result<(u64, u64), String> {
    let Some(pattern) = pattern else {
        return Err("matches a pattern that is worked out: write it as a text".to_owned());
    };
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("matches a pattern of more than {LONGEST_PATTERN} bytes: make it simpler"));
    }
    let numbers = pattern.split('{').skip(1).filter_map(|part| part.split('}').next());
    let largest = |part: &str| part.split(',').filter_map(|number| number.trim().parse::<u64>().ok()).max();
    let times = numbers.filter_map(largest).fold(1_u64, |all, number| all.saturating_mul(number.max(1)));
    if times > MOST_REPETITIONS {
        return Err(format!(
            "matches a pattern that repeats itself more than {MOST_REPETITIONS} times: make it simpler"
        ));
    }
    let (bytes, classes) = (pattern.len() as u64 + 1, pattern.matches('\\').count() as u64);
    let each = bytes.saturating_mul(PATTERN_BYTE).saturating_add(classes.saturating_mul(PATTERN_CLASS));
    Ok((PATTERN.saturating_add(each.saturating_mul(times)), bytes.saturating_mul(times)))
}
