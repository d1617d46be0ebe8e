//! Parameters of the kernels, as `kernels/include` lays them out. Every compilation checks the sizes.

use bytemuck::{Pod, Zeroable};

macro_rules! mirrored {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }
    };
}

/// An address on the device; 0 is null.
pub(crate) type Address = u64;

mirrored! {
    /// `forward/params.cuh`.
    Slot {
        row: u32,
        rows: u32,
        tile_row: u32,
        block: u32,
        score: i64,
        partial: i64,
        argmax: i64,
        argmax_stride: i64,
    }
}

mirrored! {
    /// `stored.cuh`.
    TakeParams {
        from: Address,
        slots: Address,
        to: Address,
        scales: Address,
        count: u32,
        dim: u32,
        stride: u32,
        unused: u32,
    }
}

mirrored! {
    /// `stored.cuh`.
    PutParams {
        from: Address,
        slots: Address,
        to: Address,
        count: u32,
        width: u32,
        stride: u32,
        unused: u32,
    }
}

mirrored! {
    /// `forward/params.cuh`.
    Job { tile: u32, document_begin: u32, document_end: u32, shift: u32 }
}

mirrored! {
    /// `forward/params.cuh`.
    ForwardParams {
        q: Address,
        d: Address,
        q_factors: Address,
        d_factors: Address,
        d_offsets: Address,
        q_ids: Address,
        d_ids: Address,
        q_starts: Address,
        slots: Address,
        tiles: Address,
        job_list: Address,
        chunk_documents: Address,
        table: Address,
        codes: Address,
        weights: Address,
        bias: Address,
        scores: Address,
        partials: Address,
        argmax: Address,
        q_stride: u32,
        d_stride: u32,
        chunks: u32,
        jobs: u32,
        tile_count: u32,
        chunk_rows: u32,
        row_end: u32,
        partial_stride: u32,
        table_stride: u32,
        out_stride: u32,
        centroids: u32,
        q_base: u32,
        weight_scale: f32,
        unused: u32,
    }
}

mirrored! {
    /// `forward/warpgroup.cuh`.
    #[derive(PartialEq, Eq)]
    Piece {
        tile: u32,
        row: u32,
        row_end: u32,
        document: u32,
        document_end: u32,
        chunk: u32,
        unused: [u32; 2],
    }
}

/// `forward/warpgroup.cuh`.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct WarpgroupParams {
    pub(crate) base: ForwardParams,
    pub(crate) only: Slot,
    pub(crate) pieces: Address,
    pub(crate) counters: Address,
    pub(crate) parts: Address,
    pub(crate) row_begin: u32,
    pub(crate) single: u32,
    pub(crate) listed: u32,
    pub(crate) shared: u32,
    pub(crate) unused: [u64; 3],
    pub(crate) q: [u64; 16],
    pub(crate) d: [u64; 16],
    pub(crate) part: [u64; 16],
}

/// `head/project.cuh`.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct ProjectParams {
    pub(crate) units: Address,
    pub(crate) projected: Address,
    pub(crate) norms: Address,
    pub(crate) bias: Address,
    pub(crate) rows: u32,
    pub(crate) dim: u32,
    pub(crate) unit_stride: u32,
    pub(crate) stride: u32,
    pub(crate) normalize: u32,
    pub(crate) unused: [u32; 3],
    pub(crate) h: [u64; 16],
    pub(crate) w: [u64; 16],
}

mirrored! {
    /// `forward/sums.cuh`.
    SumParams {
        partials: Address,
        blocks: Address,
        queries: Address,
        targets: Address,
        scores: Address,
        pairs: u64,
        first_score: i64,
        score_stride: i64,
        stride: u32,
        documents: u32,
        first_query: u32,
        unused: u32,
    }
}

mirrored! {
    /// `rows.cuh`.
    RowsParams {
        rows: Address,
        scales: Address,
        codes: Address,
        centroids: Address,
        weights: Address,
        factors: Address,
        stride: u32,
        count: u32,
        dim: u32,
        centroid_count: u32,
        scale: f32,
        unused: u32,
    }
}

mirrored! {
    /// `topk/select.cuh`.
    SelectParams {
        scores: Address,
        before: Address,
        keys: Address,
        stride: u64,
        count: u32,
        first: u32,
        before_count: u32,
        width: u32,
        largest: u32,
        capacity: u32,
        segment: u32,
        segments: u32,
    }
}

mirrored! {
    /// `plaid/approx.cuh`.
    ApproxParams {
        table: Address,
        codes: Address,
        offsets: Address,
        scores: Address,
        documents: u32,
        centroids: u32,
        width: u32,
        unused: u32,
    }
}

mirrored! {
    /// `plaid/candidates.cuh`.
    TurnParams { table: Address, eligible: Address, turned: Address, rows: u32, stride: u32, centroids: u32, unused: u32 }
}

mirrored! {
    /// `plaid/candidates.cuh`.
    EligibleParams {
        codes: Address,
        offsets: Address,
        allowed: Address,
        eligible: Address,
        documents: u32,
        unused: u32,
    }
}

mirrored! {
    /// `plaid/candidates.cuh`.
    MarkParams {
        keys: Address,
        table: Address,
        factors: Address,
        owners: Address,
        rows: Address,
        list_offsets: Address,
        list_entries: Address,
        probed: Address,
        candidates: Address,
        probes: u32,
        stride: u32,
        centroid_words: u32,
        document_words: u32,
        restricted: u32,
        threshold: f32,
    }
}

mirrored! {
    /// `plaid/candidates.cuh`.
    RoughParams {
        table: Address,
        factors: Address,
        codes: Address,
        offsets: Address,
        rows: Address,
        candidates: Address,
        allowed: Address,
        scores: Address,
        documents: u32,
        document_words: u32,
        centroids: u32,
        stride: u32,
        span: u32,
        unused: u32,
    }
}

mirrored! {
    /// `plaid/chosen.cuh`.
    JobsParams { keys: Address, owners: Address, jobs: Address, tiles: u32, width: u32 }
}

mirrored! {
    /// `plaid/chosen.cuh`.
    RankParams {
        scores: Address,
        chosen: Address,
        before: Address,
        keys: Address,
        stride: u64,
        width: u32,
        before_count: u32,
    }
}

mirrored! {
    /// `backward/pairs.cuh`.
    Pairs {
        q_offsets: Address,
        d_offsets: Address,
        list_q: Address,
        list_d: Address,
        list_first: Address,
        by_query: Address,
        by_query_at: Address,
        by_document: Address,
        by_document_at: Address,
        pairing: u32,
        documents: u32,
        k: u32,
        queries: u32,
    }
}

mirrored! {
    /// `backward/winners.cuh`.
    TakeWinnersParams {
        pairs: Pairs,
        from: Address,
        firsts: Address,
        q_ids: Address,
        d_ids: Address,
        to: Address,
        count: u32,
        slots: u32,
    }
}

mirrored! {
    /// `backward/group.cuh`.
    GroupParams {
        pairs: Pairs,
        winners: Address,
        grad: Address,
        firsts: Address,
        entries: Address,
        ranges: Address,
        counts: Address,
        document_begin: u32,
        document_count: u32,
    }
}

mirrored! {
    /// `backward/gather.cuh`.
    Rows {
        rows: Address,
        factors: Address,
        codes: Address,
        centroids: Address,
        weights: Address,
        stride: u32,
        dim: u32,
        centroid_count: u32,
        unused: u32,
    }
}

mirrored! {
    /// `backward/gather.cuh`.
    GatherParams {
        pairs: Pairs,
        winners: Address,
        grad: Address,
        entries: Address,
        ranges: Address,
        source: Rows,
        own: Rows,
        out: Address,
        out_stride: u32,
        row_begin: u32,
        row_count: u32,
        normalize: u32,
    }
}

mirrored! {
    /// `head/rows.cuh`.
    UnitParams { from: Address, factors: Address, to: Address, count: u32, dim: u32, from_stride: u32, stride: u32 }
}

mirrored! {
    /// `head/backward.cuh`.
    CompactParams { ranges: Address, counts: Address, rows: Address, count: Address, total: u32, unused: u32 }
}

mirrored! {
    /// `head/backward.cuh`.
    HiddenParams {
        grads: Address,
        weights: Address,
        rows: Address,
        count: Address,
        out: Address,
        dim: u32,
        model: u32,
        out_stride: u32,
        weight_stride: u32,
    }
}

mirrored! {
    /// `head/backward.cuh`.
    WeightParams {
        grads: Address,
        hidden: Address,
        rows: Address,
        count: Address,
        partials: Address,
        dim: u32,
        model: u32,
        stride: u32,
        segments: u32,
    }
}

mirrored! {
    /// `head/backward.cuh`.
    AddParams { partials: Address, out: Address, count: u32, segments: u32 }
}
