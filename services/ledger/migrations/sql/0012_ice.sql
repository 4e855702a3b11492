-- Where a notice stands is what became of the message that says it now: one whose key was revoked
-- before it was answered was sent again under a new id.
CREATE OR REPLACE VIEW notice AS
SELECT o.notice_id, o.revision, o.a_number, o.base_city, o.hearing_on, o.hearing_at, o.hearing_zone,
       o.outcome, o.office, o.lane, o.detected_at, o.origin, o.release, o.confirm, o.confirm_code,
       o.eoir_case_key, o.eoir_proceeding_key, o.eoir_schedule_key,
       coalesce(r.notice_kind, 'NEW') AS notice_kind, r.reason_code,
       coalesce(w.renewed_as, r.message_id) AS message_id,
       r.made_at AS recorded_at,
       s.stream, s.generation, s.sequence, s.sequenced_at AS sent_at, s.overdue_at,
       s.answer, s.answer_code,
       CASE WHEN s.answer = 'receipt' THEN s.answered_at END AS receipt_at,
       taken.happened_at AS acknowledged_at,
       closed.happened_at AS closed_at, closed.code AS outcome_code,
       CASE
           WHEN o.state IN ('to_confirm', 'dismissed', 'withdrawn') THEN o.state
           WHEN closed.happened_at IS NOT NULL THEN 'closed'
           WHEN s.answer IN ('refusal', 'void') THEN 'dead'
           WHEN taken.happened_at IS NOT NULL THEN 'acknowledged'
           WHEN s.answer = 'receipt' THEN 'receipted'
           WHEN s.sequence IS NOT NULL THEN 'sent'
           ELSE 'recorded'
       END AS state
FROM obligation AS o
LEFT JOIN notice_revision AS r ON r.notice_id = o.notice_id AND r.revision = o.revision
LEFT JOIN renewed AS w ON w.message_id = r.message_id
LEFT JOIN sent AS s ON s.message_id = coalesce(w.renewed_as, r.message_id)
LEFT JOIN LATERAL (
    SELECT happened_at FROM reply
    WHERE reply.notice_id = o.notice_id AND reply.kind = 'acknowledgement'
    ORDER BY reply.revision LIMIT 1
) AS taken ON true
LEFT JOIN LATERAL (
    SELECT happened_at, code FROM reply
    WHERE reply.notice_id = o.notice_id AND reply.kind = 'outcome'
    ORDER BY reply.revision DESC LIMIT 1
) AS closed ON true;
