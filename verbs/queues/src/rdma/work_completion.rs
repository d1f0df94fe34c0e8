//! Completions, in the terms of libibverbs and in ours.

use super::bindings::{self as sys, ibv_wc};
use crate::work::{Opcode, Status, WorkCompletion};

/// A completion in our terms.
pub(super) fn translate(raw: &ibv_wc) -> WorkCompletion {
    let status = status(raw.status);
    let opcode = opcode(raw.opcode);
    let carries_bytes = status.is_success() && matches!(opcode, Opcode::Receive | Opcode::Read);
    // rxe sets the flag on the sender's completion too.
    let carries_immediate = status.is_success()
        && opcode == Opcode::Receive
        && raw.wc_flags & sys::IBV_WC_WITH_IMM != 0;
    WorkCompletion {
        id: raw.wr_id,
        status,
        opcode,
        bytes: if carries_bytes { raw.byte_len } else { 0 },
        queue_pair: raw.qp_num,
        // SAFETY: both fields of the union are plain 32-bit integers.
        immediate: carries_immediate
            .then(|| u32::from_be(unsafe { raw.__bindgen_anon_1.imm_data })),
        vendor_error: if status.is_success() { 0 } else { raw.vendor_err },
        source_queue_pair: raw.src_qp,
        source_lid: raw.slid,
        service_level: raw.sl,
        has_grh: raw.wc_flags & sys::IBV_WC_GRH != 0,
    }
}

fn status(raw: sys::ibv_wc_status) -> Status {
    match raw {
        sys::IBV_WC_SUCCESS => Status::Success,
        sys::IBV_WC_LOC_LEN_ERR => Status::LocalLength,
        sys::IBV_WC_LOC_QP_OP_ERR => Status::LocalOperation,
        sys::IBV_WC_LOC_PROT_ERR => Status::LocalProtection,
        sys::IBV_WC_WR_FLUSH_ERR => Status::Flushed,
        sys::IBV_WC_REM_INV_REQ_ERR => Status::RemoteInvalidRequest,
        sys::IBV_WC_REM_ACCESS_ERR => Status::RemoteAccess,
        sys::IBV_WC_REM_OP_ERR => Status::RemoteOperation,
        sys::IBV_WC_RETRY_EXC_ERR => Status::RetryExceeded,
        sys::IBV_WC_RNR_RETRY_EXC_ERR => Status::ReceiverNotReady,
        other => Status::Unknown(other),
    }
}

fn opcode(raw: sys::ibv_wc_opcode) -> Opcode {
    match raw {
        sys::IBV_WC_SEND => Opcode::Send,
        sys::IBV_WC_RDMA_WRITE => Opcode::Write,
        sys::IBV_WC_RDMA_READ => Opcode::Read,
        sys::IBV_WC_RECV => Opcode::Receive,
        other => Opcode::Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_translate() {
        let mut raw = ibv_wc {
            wr_id: 5,
            opcode: sys::IBV_WC_RECV,
            byte_len: 100,
            qp_num: 17,
            src_qp: 18,
            wc_flags: sys::IBV_WC_WITH_IMM | sys::IBV_WC_GRH,
            slid: 19,
            sl: 2,
            vendor_err: 3,
            ..ibv_wc::default()
        };
        raw.__bindgen_anon_1.imm_data = u32::from_ne_bytes([1, 2, 3, 4]);
        let received = WorkCompletion {
            id: 5,
            status: Status::Success,
            opcode: Opcode::Receive,
            bytes: 100,
            queue_pair: 17,
            immediate: Some(0x0102_0304),
            vendor_error: 0,
            source_queue_pair: 18,
            source_lid: 19,
            service_level: 2,
            has_grh: true,
        };
        assert_eq!(translate(&raw), received);

        raw.opcode = sys::IBV_WC_SEND;
        let sent = WorkCompletion { opcode: Opcode::Send, bytes: 0, immediate: None, ..received };
        assert_eq!(translate(&raw), sent);

        raw.status = sys::IBV_WC_RETRY_EXC_ERR;
        let failed = WorkCompletion { status: Status::RetryExceeded, vendor_error: 3, ..sent };
        assert_eq!(translate(&raw), failed);

        (raw.status, raw.opcode) = (4711, 815);
        let odd = translate(&raw);
        assert_eq!((odd.status, odd.opcode), (Status::Unknown(4711), Opcode::Unknown(815)));
    }
}
