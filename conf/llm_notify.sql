-- Tells the gateway at once which row of `users` has changed (channel llm_users, payload = its id). Without this, a
-- change is seen with the next `refresh` of llm_priority_db. Works on an existing Aristote Dispatcher database; running
-- it twice changes nothing.

BEGIN;

CREATE OR REPLACE FUNCTION llm_notify_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('llm_users', '');  -- no row in particular: all are read again
        RETURN NULL;
    END IF;
    -- by way of JSON, which needs no column of that name: of a table without one all rows are read again
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('llm_users', coalesce(to_jsonb(OLD) ->> 'id', ''));
    END IF;
    -- a notification of the same text is sent once per transaction, so an update sends one unless it changes the id
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('llm_users', coalesce(to_jsonb(NEW) ->> 'id', ''));
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER IF EXISTS llm_notify_user ON users;
CREATE TRIGGER llm_notify_user
    AFTER INSERT OR UPDATE OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION llm_notify_user();

DROP TRIGGER IF EXISTS llm_notify_users_truncated ON users;
CREATE TRIGGER llm_notify_users_truncated
    AFTER TRUNCATE ON users
    FOR EACH STATEMENT EXECUTE FUNCTION llm_notify_user();

COMMIT;
