#include "ngx_module/sources/usage_handover.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <string>

namespace llm::nginx::sources {
namespace {

class UsageHandoverTest : public ::testing::Test {
  protected:
    ~UsageHandoverTest() override { close(fd); }

    static std::vector<UsageRecord> records(size_t count, const std::string& model) {
        std::vector<UsageRecord> out(count);
        for (size_t i = 0; i < count; ++i) {
            out[i].model = model;
            out[i].requeue_count = static_cast<int64_t>(i);
        }
        return out;
    }

    const int fd = UsageHandover::make();
    UsageHandover handover{fd};
};

TEST_F(UsageHandoverTest, GivesBackWhatWasPut) {
    EXPECT_TRUE(handover.empty());
    EXPECT_TRUE(handover.take().empty());
    UsageRecord one;
    one.user_name = std::string("n\0ul", 4);
    one.user_organization = std::string(70'000, 'x');
    one.request_date = 1700000000.25;
    one.sent_to_llm_date = 1.5;
    one.response_date = 2.5;
    one.model = "m";
    one.server = "http://a";
    one.server_organization = "cs";
    one.prompt_tokens = 0;
    one.strategy = "throughput";
    one.requeue_count = -1;
    one.max_parallel_requests = 4;
    one.current_parallel_requests = 3;
    one.priority = 7;
    one.performance_score = 27.5;
    one.routing_mode = "any";
    ASSERT_TRUE(handover.put(std::vector<UsageRecord>{one, UsageRecord()}));
    EXPECT_FALSE(handover.empty());
    EXPECT_EQ(handover.count(), 2u);
    const std::vector<UsageRecord> got = UsageHandover(fd).take();
    ASSERT_EQ(got.size(), 2u);
    const UsageRecord& back = got[0];
    EXPECT_EQ(back.user_name, one.user_name);
    EXPECT_EQ(back.user_organization, one.user_organization);
    EXPECT_EQ(back.request_date, one.request_date);
    EXPECT_EQ(back.sent_to_llm_date, one.sent_to_llm_date);
    EXPECT_EQ(back.response_date, one.response_date);
    EXPECT_EQ(back.model, one.model);
    EXPECT_EQ(back.server, one.server);
    EXPECT_EQ(back.server_organization, one.server_organization);
    EXPECT_EQ(back.prompt_tokens, one.prompt_tokens);
    EXPECT_EQ(back.completion_tokens, std::nullopt);
    EXPECT_EQ(back.strategy, one.strategy);
    EXPECT_EQ(back.requeue_count, one.requeue_count);
    EXPECT_EQ(back.max_parallel_requests, one.max_parallel_requests);
    EXPECT_EQ(back.current_parallel_requests, one.current_parallel_requests);
    EXPECT_EQ(back.priority, one.priority);
    EXPECT_EQ(back.performance_score, one.performance_score);
    EXPECT_EQ(back.routing_mode, one.routing_mode);
    EXPECT_TRUE(got[1].user_name.empty());
    EXPECT_TRUE(std::isnan(got[1].performance_score));
    EXPECT_TRUE(handover.empty());
}

TEST_F(UsageHandoverTest, BlocksAreTakenOneByOne) {
    ASSERT_TRUE(handover.put(records(3, "first")));
    ASSERT_TRUE(handover.put(records(2, "second")));
    EXPECT_EQ(handover.count(), 5u);
    EXPECT_EQ(handover.take().size(), 2u);
    ASSERT_TRUE(handover.put(records(4, "third")));
    EXPECT_EQ(handover.take().at(3).model, "third");
    EXPECT_EQ(handover.take().at(2).model, "first");
    EXPECT_TRUE(handover.empty());
}

TEST_F(UsageHandoverTest, WhatIsDiscardedIsCountedOnce) {
    ASSERT_TRUE(handover.put(records(3, "first")));
    ASSERT_TRUE(handover.put(records(2, "second")));
    EXPECT_EQ(handover.discard(), 5u);
    EXPECT_TRUE(handover.empty());
    EXPECT_EQ(handover.discard(), 0u);
    EXPECT_EQ(UsageHandover(-1).discard(), 0u);
}

// A worker that is killed while it writes.
TEST_F(UsageHandoverTest, WhatIsNotWholeIsWrittenOver) {
    ASSERT_TRUE(handover.put(records(3, "whole")));
    ASSERT_TRUE(handover.put(records(3, "torn")));
    const off_t end = lseek(fd, 0, SEEK_END);
    for (const off_t missing : {1, 100}) {
        ASSERT_EQ(ftruncate(fd, end - missing), 0);
        EXPECT_EQ(handover.count(), 3u);
    }
    ASSERT_TRUE(handover.put(records(1, "after")));
    EXPECT_EQ(handover.take().at(0).model, "after");
    EXPECT_EQ(handover.take().at(0).model, "whole");
    EXPECT_TRUE(handover.empty());
    ASSERT_EQ(ftruncate(fd, 7), 0);  // not even a head
    EXPECT_TRUE(handover.take().empty());
    EXPECT_TRUE(handover.empty());
}

TEST_F(UsageHandoverTest, IsBounded) {
    std::vector<UsageRecord> large(1);
    large[0].model = std::string(UsageHandover::kMostBytes / 4, 'x');
    size_t taken = 0;
    while (handover.put(large)) {
        ++taken;
    }
    EXPECT_EQ(taken, 3u);
    EXPECT_EQ(handover.count(), taken);
    ASSERT_TRUE(handover.put(records(1, "small")));
    EXPECT_FALSE(UsageHandover(-1).put(records(1, "nowhere")));
    EXPECT_TRUE(UsageHandover(-1).take().empty());
    EXPECT_EQ(UsageHandover(-1).count(), 0u);
}

// Workers that end together, and one that takes meanwhile.
TEST_F(UsageHandoverTest, NothingIsLostBetweenProcesses) {
    constexpr int kProcesses = 4;
    constexpr size_t kBlocks = 200;
    std::vector<pid_t> writers;
    for (int p = 0; p < kProcesses; ++p) {
        const pid_t pid = fork();
        ASSERT_GE(pid, 0);
        if (pid == 0) {
            bool all = true;
            for (size_t i = 0; i < kBlocks; ++i) {
                all = handover.put(records(1 + i % 5, std::to_string(p))) && all;
            }
            _exit(all ? 0 : 1);
        }
        writers.push_back(pid);
    }
    std::map<std::string, size_t> got;
    const auto take = [&] {
        const std::vector<UsageRecord> block = handover.take();
        for (const UsageRecord& record : block) {
            ++got[record.model];
        }
        return !block.empty();
    };
    for (size_t left = writers.size(); left > 0;) {
        take();
        int status = 0;
        if (waitpid(-1, &status, WNOHANG) > 0) {
            EXPECT_EQ(status, 0);
            --left;
        }
    }
    while (take()) {
    }
    EXPECT_EQ(got.size(), size_t{kProcesses});
    for (const auto& [process, count] : got) {
        EXPECT_EQ(count, kBlocks * 3) << process;
    }
}

}  // namespace
}  // namespace llm::nginx::sources
