-- What a notice would say while a person decides is a payload like every content: kept once, erased
-- like the others, and bound by the commitment of the record that tells of the question.
ALTER TABLE obligation ADD COLUMN content_id uuid;
UPDATE obligation SET content_id = gen_random_uuid() WHERE content IS NOT NULL;
INSERT INTO payload (message_id, body)
SELECT content_id, content FROM obligation WHERE content_id IS NOT NULL;
ALTER TABLE obligation DROP COLUMN content;
