//! Pairs along a row as hooks: what they read of an element and of its partner, one step of their folds.

use super::{Row, Trip};
use crate::codegen::access::Frame;
use crate::codegen::emit::Emit;
use crate::codegen::structure;
use crate::expr::op::Kind;
use crate::expr::{Fold, Node, NodeId};
use crate::shape::Scope;
use crate::text::{put, putln};

impl Row<'_, '_> {
    fn is_pair(&self, id: NodeId) -> bool {
        self.frame.program.scope(id) == Scope::Pair
    }

    /// The folds of a trip: the fold, its node and its operand.
    fn folds(&self, trip: &Trip) -> Vec<(Fold, NodeId, NodeId)> {
        let of = |&id: &NodeId| match *self.frame.program.node(id) {
            Node::FoldPartners(fold, x) => (fold, id, x),
            ref other => unreachable!("a trip of pairs folds them, and is not {other:?}"),
        };
        trip.left().iter().map(of).collect()
    }

    /// Values per pair, operands first.
    fn pair_nodes(&self, trip: &Trip) -> Vec<NodeId> {
        let roots: Vec<NodeId> = self.folds(trip).into_iter().map(|(.., x)| x).collect();
        let below = self
            .frame
            .program
            .below(&roots, |id| !self.is_pair(id) || matches!(self.frame.program.node(id), Node::Partner(_)));
        below.into_iter().filter(|id| self.is_pair(*id)).collect()
    }

    /// Values per element that pairs read of the element itself.
    fn own_nodes(&self, trip: &Trip) -> Vec<NodeId> {
        let program = self.frame.program;
        let partner = |id: &NodeId| matches!(program.node(*id), Node::Partner(_));
        let of_pairs = self.pair_nodes(trip).into_iter().filter(|id| !partner(id));
        let operands = of_pairs.flat_map(|id| program.node(id).operands());
        let roots = self.folds(trip).into_iter().map(|(.., x)| x);
        let mut own: Vec<NodeId> =
            operands.chain(roots).filter(|&id| self.is_element(id) && !self.is_pair(id)).collect();
        own.sort_unstable();
        own.dedup();
        own
    }

    /// What pairs read of partners: the `Partner` and its operand.
    fn partners(&self, trip: &Trip) -> Vec<(NodeId, NodeId)> {
        let of = |id: NodeId| match *self.frame.program.node(id) {
            Node::Partner(x) => Some((id, x)),
            _ => None,
        };
        self.pair_nodes(trip).into_iter().filter_map(of).collect()
    }

    /// Element values that the trip reads.
    pub(super) fn pair_roots(&self, trip: &Trip) -> Vec<NodeId> {
        let partners = self.partners(trip).into_iter().map(|(_, x)| x);
        self.own_nodes(trip).into_iter().chain(partners).filter(|id| self.is_element(*id)).collect()
    }

    /// The type of a value in a window.
    fn window_type(&self, kind: Kind) -> String {
        let ty = match kind {
            Kind::Float => "F",
            Kind::Int => "U",
            Kind::Bool => "B",
        };
        format!("{ty}{}", if self.frame.width == 4 { "4" } else { "" })
    }

    /// The hooks of a trip of pairs.
    pub(super) fn pairs_text(&self, trip: &Trip) -> String {
        let (n, program) = (trip.index, self.frame.program);
        let own = self.own_nodes(trip);
        let none = [("none".to_owned(), "u32".to_owned())];
        let field = |id: &NodeId| (format!("e{}", id.0), self.window_type(program.kind(*id)));
        let mut text =
            structure(&format!("Paired{n}"), &none.into_iter().chain(own.iter().map(field)).collect::<Vec<_>>());
        for (id, _) in self.partners(trip) {
            putln!(text, "var<workgroup> pairs{n}_p{}: array<u32, WG * WIDTH>;", id.0);
        }
        let folds = self.folds(trip);
        let f = self.window_type(Kind::Float);
        let fields: Vec<(String, String)> = folds.iter().map(|(_, id, _)| (format!("v{}", id.0), f.clone())).collect();
        text.push_str(&structure(&format!("Pairs{n}"), &fields));
        let identity = folds.iter().map(|(fold, ..)| match fold {
            Fold::Sum => format!("{f}(0.0)"),
            Fold::Max => format!("{f}(bitcast<f32>(shape.reserved0 | 0xff800000u))"),
        });
        let identity = identity.collect::<Vec<_>>().join(", ");
        putln!(text, "fn pairs{n}_identity() -> Pairs{n} {{ return Pairs{n}({identity}); }}");
        let both = folds.iter().map(|(fold, id, _)| combined(*fold, &format!("a.v{}", id.0), &format!("b.v{}", id.0)));
        let both = both.collect::<Vec<_>>().join(", ");
        putln!(text, "fn pairs{n}_combine(a: Pairs{n}, b: Pairs{n}) -> Pairs{n} {{ return Pairs{n}({both}); }}");
        text.push_str(&self.own_text(trip, self.frame, "own"));
        text.push_str(&self.lay_text(trip, self.frame, "lay"));
        if self.ends.has_ends() {
            text.push_str(&self.own_text(trip, self.ends, "end_own"));
            text.push_str(&self.lay_text(trip, self.ends, "end_lay"));
        } else {
            putln!(
                text,
                "fn pairs{n}_end_own(r: RowValues, f: Window, col: u32) -> Paired{n} {{ return Paired{n}(); }}\n\
                 fn pairs{n}_end_lay(r: RowValues, f: Window, col: u32, thread: u32) {{}}"
            );
        }
        text.push_str(&self.pair_step_text(trip));
        putln!(text, "fn pairs{n}_leave(r: RowValues, s: Pairs{n}, col: u32) {{");
        for (_, id, _) in &folds {
            for (k, at) in self.components().iter().enumerate() {
                putln!(text, "    {} = bitcast<u32>(s.v{}{at});", self.left_word(*id, k), id.0);
            }
        }
        text.push_str("}\n");
        text.push_str(&self.along_finish_text(trip));
        text
    }

    /// What pairs read of a lane's own window.
    fn own_text(&self, trip: &Trip, frame: &Frame<'_>, name: &str) -> String {
        let (n, own) = (trip.index, self.own_nodes(trip));
        let mut text = format!(
            "fn pairs{n}_{name}(r: RowValues, {}, col: u32) -> Paired{n} {{\n{}",
            self.argument(frame),
            self.unpack(frame)
        );
        text.push_str(&self.element_lets(&self.element_nodes(&own)));
        let values: Vec<String> = own.iter().map(|id| self.element_value(*id)).collect();
        putln!(
            text,
            "    return Paired{n}({});\n}}",
            ["0u".to_owned()].into_iter().chain(values).collect::<Vec<_>>().join(", ")
        );
        text
    }

    /// A window laid out in workgroup memory.
    fn lay_text(&self, trip: &Trip, frame: &Frame<'_>, name: &str) -> String {
        let n = trip.index;
        let partners = self.partners(trip);
        let mut text = format!(
            "fn pairs{n}_{name}(r: RowValues, {}, col: u32, thread: u32) {{\n{}",
            self.argument(frame),
            self.unpack(frame)
        );
        let roots: Vec<NodeId> = partners.iter().map(|(_, x)| *x).filter(|x| self.is_element(*x)).collect();
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        for (id, x) in partners {
            let value = format!("{}({})", self.window_type(self.frame.program.kind(x)), self.element_value(x));
            for (k, at) in self.components().iter().enumerate() {
                let bits = match self.frame.program.kind(x) {
                    Kind::Float => format!("bitcast<u32>(({value}){at})"),
                    Kind::Int => format!("({value}){at}"),
                    Kind::Bool => format!("select(0u, 1u, ({value}){at})"),
                };
                putln!(text, "    pairs{n}_p{}[thread * WIDTH + {k}u] = {bits};", id.0);
            }
        }
        text.push_str("}\n");
        text
    }

    /// The pairs of a window with one partner.
    fn pair_step_text(&self, trip: &Trip) -> String {
        let (n, frame) = (trip.index, self.frame);
        let mut text = format!(
            "fn pairs{n}_step(before: Pairs{n}, r: RowValues, own: Paired{n}, at: u32) -> Pairs{n} {{\n    var s = before;\n"
        );
        for id in self.own_nodes(trip) {
            putln!(text, "    let e{0} = own.e{0};", id.0);
        }
        let here = |id: NodeId| self.is_element(id);
        let emit = Emit { frame, width: frame.width, outer: "r", here: &here };
        text.push_str(&emit.lets(&self.pair_nodes(trip), &|id| match *frame.program.node(id) {
            Node::Partner(x) => {
                let (ty, word) = (self.window_type(frame.program.kind(x)), format!("pairs{n}_p{}[at]", id.0));
                let value = match frame.program.kind(x) {
                    Kind::Float => format!("bitcast<f32>({word})"),
                    Kind::Int => word,
                    Kind::Bool => format!("{word} != 0u"),
                };
                format!("    let e{} = {ty}({value});\n", id.0)
            }
            ref other => unreachable!("values per pair hold no {other:?}"),
        }));
        for (fold, id, x) in self.folds(trip) {
            let value = format!("{}({})", self.window_type(Kind::Float), emit.value(x));
            putln!(text, "    s.v{} = {};", id.0, combined(fold, &format!("s.v{}", id.0), &value));
        }
        put!(text, "    return s;\n}}\n");
        text
    }
}

fn combined(fold: Fold, a: &str, b: &str) -> String {
    match fold {
        Fold::Sum => format!("{a} + {b}"),
        Fold::Max => format!("max({a}, {b})"),
    }
}
