//! Operators over sequences: against enumerations of all alignments, against textbook loops, and out of range.

mod crf;
mod ctc;
mod ctc_hostile;
mod ctc_storage;
mod oracle;
mod rnnt;
