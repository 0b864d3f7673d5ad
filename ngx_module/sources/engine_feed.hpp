// Follows the engines through Redis: subscribes to their reports, then reads what was there before, then
// keeps looking whether their keys are still there.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ngx_module/sources/engine_sink.hpp"
#include "ngx_module/sources/loop.hpp"
#include "ngx_module/sources/resp_client.hpp"

namespace llm::nginx::sources {

class EngineFeed {
  public:
    // `endpoint` and `sink` must outlive the feed.
    EngineFeed(const RespEndpoint& endpoint, std::string_view prefix, EngineSink& sink);

    void start();
    void stop();

  private:
    // Each of the two connections tells us when it comes and goes.
    class Ear : public RespClient::Listener {
      public:
        explicit Ear(EngineFeed& feed, bool subscriber) : feed_(feed), subscriber_(subscriber) {}
        void on_ready() override;
        void on_lost() override { feed_.on_lost(); }
        void on_message(std::string_view channel, std::string_view payload) override;

      private:
        EngineFeed& feed_;
        bool subscriber_;
    };
    struct Known {
        uint32_t ttl_ms = 0;
        ngx_msec_t seen_at = 0;
    };

    void on_subscriber_ready();
    void on_lost();
    void follow();
    void scan(const std::string& cursor);
    void on_scan(const redisReply& reply);
    void read_next();
    void on_values(const std::vector<std::string>& ids, const redisReply& reply);
    void end_round();
    void on_tick();
    void take(std::string_view text, const std::string* expected_id);
    void miss(const std::string& id);

    std::string key_prefix_;  // "<prefix>engine:"
    std::string channel_;     // "<prefix>engines"
    EngineSink& sink_;
    Ear subscriber_ear_;
    Ear reader_ear_;
    RespClient subscriber_;
    RespClient reader_;
    bool subscribed_ = false;

    // A round: SCAN (a full one) or the known ids, then MGET of what was found, batch by batch.
    bool busy_ = false;
    std::string cursor_;            // of SCAN; empty = no further page
    std::deque<std::string> todo_;  // ids whose keys are still to be read in this round
    uint32_t rounds_ = 0;
    Timer tick_;

    std::unordered_map<std::string, Known> known_;
};

}  // namespace llm::nginx::sources
