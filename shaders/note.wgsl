// Notes that a stored gradient is not finite. The word is read first: where all are NaN, one store is enough.
fn note(is_infinite: bool) {
    if (is_infinite && atomicLoad(&scalars.found) == 0u) {
        atomicStore(&scalars.found, 1u);
    }
}
