//! Which part of the generic grids runs: what is generic (extra inputs × reductions × shapes) need not run for every loss
//! each time, since compiling its kernels is nearly all of what the tests cost.

/// Part `index` of `of`: the cases whose label hashes to it. The parts share no case and leave none out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    index: u64,
    of: u64,
}

impl Share {
    pub const ALL: Share = Share { index: 0, of: 1 };

    /// What `WGLOSS_TEST_SHARE` says, `k/n` with any k; all, where it is not set.
    pub fn from_env() -> Share {
        match std::env::var("WGLOSS_TEST_SHARE") {
            Ok(text) if !text.is_empty() => {
                Share::parse(&text).unwrap_or_else(|| panic!("WGLOSS_TEST_SHARE={text} is not k/n"))
            }
            _ => Share::ALL,
        }
    }

    pub fn parse(text: &str) -> Option<Share> {
        let (index, of) = text.split_once('/')?;
        let (index, of) = (index.parse::<u64>().ok()?, of.parse::<u64>().ok().filter(|of| *of > 0)?);
        Some(Share { index: index % of, of })
    }

    /// Whether the case with this label is one of this part.
    pub fn takes(self, label: &str) -> bool {
        // FNV-1a, then the finaliser of splitmix64, whose high bits depend on every byte.
        let hash = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let z = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 33) % self.of == self.index
    }
}
