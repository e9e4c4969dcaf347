//! Conditions that an expression must meet before it is rewritten.

use super::program::OutputKind;
use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::expr::{Classes, Graph, Node, NodeId, Reduce, Threshold};
use crate::shape::{ColumnCount, RowAxis, Scope};
use std::collections::HashSet;

/// An error for row values without a row axis, and for a masked sum over other rows, which the mask would not reach.
pub(super) fn check_rows(graph: &Graph, name: &str, row_axis: RowAxis, outputs: &[(OutputKind, NodeId)]) -> Result<()> {
    let roots: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
    let fault = |message: &str| Err(Error::Expr { loss: name.to_owned(), message: message.to_owned() });
    for id in graph.reachable(&roots) {
        let of_rows = matches!(graph.scope(id), Scope::Row | Scope::Column | Scope::Group | Scope::GroupColumn)
            || matches!(graph.node(id), Node::Softmax(_) | Node::SoftmaxMinusOne(_))
            || graph.node(id).runs_along_row();
        if row_axis == RowAxis::None && of_rows {
            return fault(
                "row, column and group values, and scans, pairs and sorts of a row, need a row axis: say which with `row_axis`",
            );
        }
        let counts_columns = matches!(graph.node(id), Node::InRange(_, Classes::Columns | Classes::Between));
        if row_axis == RowAxis::None && counts_columns {
            return fault("in_columns and in_thresholds need a row axis; in_range states the number of classes");
        }
        if let Node::Masked(mask, x) = graph.node(id) {
            if holds_sum_beyond(graph, graph.scope(mask), x) {
                return fault("a masked value may not contain sum_over: the mask would not reach the other rows");
            }
        }
    }
    Ok(())
}

/// The numbers of columns that a loss takes: those that its definition states, and at least those that these expressions
/// read by a fixed index or rank. They are as the loss wrote them: what is made of them may gather where no column is.
pub(super) fn column_count(graph: &Graph, name: &str, exactly: Option<u64>, roots: &[NodeId]) -> Result<ColumnCount> {
    let mut least = 0;
    for id in graph.reachable(roots) {
        if let Node::Reduce(Reduce::Threshold(Threshold::TopK(k)), _) = graph.node(id) {
            if exactly.is_some_and(|count| count < u64::from(k)) {
                let columns = exactly.unwrap_or_default();
                let message = format!("ranks elements down to the {k}th largest of its {columns} columns");
                return Err(Error::Expr { loss: name.to_owned(), message });
            }
            least = least.max(u64::from(k));
        }
        let Node::At(_, label) = graph.node(id) else { continue };
        let Node::Int(column) = graph.node(label) else { continue };
        let is_there = column >= 0 && exactly.is_none_or(|count| (column as u64) < count);
        if !is_there {
            let columns = exactly.map_or_else(|| "its columns".to_owned(), |count| format!("its {count} columns"));
            let message = format!("reads column {column}, which is none of {columns}");
            return Err(Error::Expr { loss: name.to_owned(), message });
        }
        least = least.max(column as u64 + 1);
    }
    Ok(ColumnCount { exactly, least })
}

/// An error for an index gathered at a label, in a range of the columns: gathers are sums there, and indices are not summed.
pub(super) fn check_gathers(graph: &Graph, name: &str, roots: &[NodeId]) -> Result<()> {
    let is_index = |id: &NodeId| match graph.node(*id) {
        Node::At(x, _) => graph.kind(x) == Kind::Int && graph.node(x) != Node::ColIndex,
        _ => false,
    };
    if !graph.reachable(roots).iter().any(is_index) {
        return Ok(());
    }
    let message =
        format!("a shard of {name}, or a row larger than a binding: it reads a label of an element at a label");
    Err(Error::Unsupported { message })
}

/// An error for scans, pairs, sorts and thresholds of rows of which a dispatch sees a range of the columns, and for those that
/// leave elements and are summed over the rows for each column: the kernels of such sums run none; and for an output per pair.
pub(super) fn check_along_rows(graph: &Graph, name: &str, roots: &[NodeId], is_range: bool) -> Result<()> {
    let runs_along = |id: &NodeId| graph.node(*id).runs_along_row();
    let is_threshold = |id: &NodeId| matches!(graph.node(*id), Node::Reduce(Reduce::Threshold(_), _));
    let below = graph.reachable(roots);
    if let Some(pair) = roots.iter().find(|id| graph.scope(**id) == Scope::Pair) {
        let message =
            format!("`{}` has one value per pair; fold it over the partners (`sum_partners`)", graph.print(*pair));
        return Err(Error::Expr { loss: name.to_owned(), message });
    }
    if is_range && below.iter().any(is_threshold) {
        let message = format!(
            "a shard of {name}, or a row larger than a binding: it looks for a threshold of the row (sparsemax, entmax, top k), \
             trip after trip over all columns; give whole rows that fit a binding"
        );
        return Err(Error::Unsupported { message });
    }
    if is_range && below.iter().any(runs_along) {
        let message = format!(
            "a shard of {name}, or a row larger than a binding: it scans, pairs or sorts the row; give whole rows that fit a binding"
        );
        return Err(Error::Unsupported { message });
    }
    let of_columns = below.iter().filter(|id| match graph.node(**id) {
        Node::FoldOver(_, to, x) => to.has_columns() && graph.scope(x) == Scope::Element,
        _ => false,
    });
    for sum in of_columns {
        let operands = graph.node(*sum).operands().collect::<Vec<NodeId>>();
        let terms = graph.reachable_until(&operands, |node| matches!(node, Node::FoldOver(..)));
        if terms.iter().any(runs_along) {
            let message = format!(
                "a sum of {name} over the rows for each column, of values that a scan, pairs or a sort of the row leaves; sum the elements of each row first, or each column by itself (`column(k)`)"
            );
            return Err(Error::Unsupported { message });
        }
    }
    Ok(())
}

/// Whether a value holds a sum that carries a gradient and goes further out than `scope`: over other rows than those
/// that a mask of that scope leaves out.
fn holds_sum_beyond(graph: &Graph, scope: Scope, root: NodeId) -> bool {
    let (mut seen, mut open) = (HashSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        match graph.node(id) {
            Node::FoldOver(_, to, _) if to.join(scope) != to => return true,
            Node::Detach(_) => {}
            node if seen.insert(id) => open.extend(node.operands()),
            _ => {}
        }
    }
    false
}
