-- wrk: one chat request. Every answer is looked at; the last line printed is for run.py.
local text = "An answer of five tokens."
local threads = {}
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-bench"
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = file:read("*a")
file:close()

function setup(thread)
    table.insert(threads, thread)
end

function init()
    wrong = 0
end

function response(status, headers, body)
    if status ~= 200 or not body:find(text, 1, true) then
        wrong = wrong + 1
    end
end

function done(summary)
    local errors = summary.errors
    local bad = errors.connect + errors.read + errors.write + errors.timeout
    for _, thread in ipairs(threads) do
        bad = bad + thread:get("wrong")
    end
    print(string.format("%d %d %d", summary.requests, summary.duration, bad))
end
