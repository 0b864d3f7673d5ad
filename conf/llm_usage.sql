-- What clients have used, from the rows that `llm_usage` writes: for reports and bills. Works on Aristote Dispatcher's
-- table `metrics` too, as far back as its rows go; running it twice changes nothing. Days are those of UTC.
--
--     SELECT * FROM llm_usage_daily WHERE day >= current_date - 30 ORDER BY day, total_tokens DESC;

BEGIN;

-- One row per client and day.
CREATE OR REPLACE VIEW llm_usage_daily AS
SELECT (to_timestamp(extract(epoch FROM request_date)) AT TIME ZONE 'UTC')::date AS day,
       user_name::text                                             AS user_name,
       count(*)                                                    AS requests,
       coalesce(sum(prompt_tokens), 0)::bigint                     AS prompt_tokens,
       coalesce(sum(completion_tokens), 0)::bigint                 AS completion_tokens,
       (coalesce(sum(prompt_tokens), 0) + coalesce(sum(completion_tokens), 0))::bigint AS total_tokens,
       -- seconds, on average: waited for an engine, and took there
       avg(extract(epoch FROM sent_to_llm_date - request_date))::float8     AS wait_seconds,
       avg(extract(epoch FROM response_date - sent_to_llm_date))::float8    AS engine_seconds
  FROM metrics
 GROUP BY 1, 2;

-- The same for each model.
CREATE OR REPLACE VIEW llm_usage_daily_models AS
SELECT (to_timestamp(extract(epoch FROM request_date)) AT TIME ZONE 'UTC')::date AS day,
       user_name::text                                             AS user_name,
       model::text                                                 AS model,
       count(*)                                                    AS requests,
       coalesce(sum(prompt_tokens), 0)::bigint                     AS prompt_tokens,
       coalesce(sum(completion_tokens), 0)::bigint                 AS completion_tokens,
       (coalesce(sum(prompt_tokens), 0) + coalesce(sum(completion_tokens), 0))::bigint AS total_tokens
  FROM metrics
 GROUP BY 1, 2, 3;

COMMIT;
