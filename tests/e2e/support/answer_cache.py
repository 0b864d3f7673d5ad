"""nginx's own cache in the location of a gateway."""


def answer_cache(directory, key="$llm_body_hash", valid="200 1h", more=""):
    """What `gateway` takes for it. The header X-Cache says whether an answer came from there."""
    return {"http": f"proxy_cache_path {directory}/cache keys_zone=answers:1m;",
            "location": f"proxy_buffering on; proxy_cache answers; proxy_cache_methods POST; proxy_cache_valid {valid}; proxy_cache_key {key};"
                        f"add_header X-Cache $upstream_cache_status; {more}"}
