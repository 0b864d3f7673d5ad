#include "ngx_module/core/text/multipart.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace llm::core {
namespace {

using namespace std::string_view_literals;
using namespace std::string_literals;

constexpr std::string_view kType = "multipart/form-data; boundary=XyZ";

MultipartScan scan_pieces(std::string_view body, std::string_view type, size_t first, size_t others) {
    MultipartScan scan;
    scan.begin(type);
    for (size_t size = first; !body.empty(); size = others) {
        size = std::min(std::max<size_t>(size, 1), body.size());
        const std::string piece(body.substr(0, size));
        scan.feed(piece);
        body.remove_prefix(size);
    }
    scan.finish();
    return scan;
}

// Whole, in two pieces cut at every place, and byte by byte; all must agree.
MultipartScan scan_every_way(std::string_view body, std::string_view type = kType) {
    const MultipartScan whole = scan_pieces(body, type, body.size(), body.size());
    for (size_t cut = 0; cut < body.size(); ++cut) {
        const MultipartScan scan =
            cut == 0 ? scan_pieces(body, type, 1, 1) : scan_pieces(body, type, cut, body.size());
        EXPECT_EQ(scan.error_kind(), whole.error_kind()) << cut << ": " << scan.error() << '\n' << body;
        EXPECT_STREQ(scan.error(), whole.error());
        EXPECT_EQ(scan.error_key(), whole.error_key());
        EXPECT_EQ(scan.error_offset(), whole.error_offset()) << cut << ": " << scan.error() << '\n' << body;
        EXPECT_EQ(scan.keys().has_model, whole.keys().has_model);
        EXPECT_EQ(scan.keys().model(), whole.keys().model());
        EXPECT_EQ(scan.keys().model_span.begin, whole.keys().model_span.begin);
        EXPECT_EQ(scan.keys().model_span.end, whole.keys().model_span.end);
        EXPECT_EQ(scan.keys().stream, whole.keys().stream);
        EXPECT_EQ(scan.keys().priority, whole.keys().priority);
        EXPECT_EQ(scan.keys().n, whole.keys().n);
        EXPECT_EQ(scan.keys().routing_mode(), whole.keys().routing_mode());
        EXPECT_EQ(scan.keys().text_bytes, whole.keys().text_bytes);
    }
    return whole;
}

std::string field(std::string_view name, std::string_view value) {
    return "--XyZ\r\nContent-Disposition: form-data; name=\"" + std::string(name) + "\"\r\n\r\n" +
           std::string(value) + "\r\n";
}

const std::string kFile =
    "--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b\\\".wav\"\r\nContent-Type: "
    "audio/wav\r\n\r\n"
    "RIFF\r\r\n-\r\n--\r\n--X\r\n--Xy\r\r\n--XyA\0\n\xff--XyZ\r\n"s;

void expect_refused(const std::string& body, ErrorKind kind, std::string_view key = "") {
    const MultipartScan scan = scan_every_way(body);
    EXPECT_EQ(scan.error_kind(), kind) << body << ": " << scan.error();
    EXPECT_EQ(scan.error_key(), key) << body;
}

TEST(Multipart, FindsTheControlFields) {
    const std::string body = kFile + field("model", "whisper-1") + field("stream", "true") +
                             field("priority", "-2") + field("n", "3") + field("routing-mode", "any") +
                             field("prompt", "12345") + "--XyZ--\r\n";
    const MultipartScan scan = scan_every_way(body);
    EXPECT_FALSE(scan.failed()) << scan.error();
    const ControlKeys& keys = scan.keys();
    EXPECT_TRUE(keys.has_model);
    EXPECT_EQ(keys.model(), "whisper-1");
    EXPECT_EQ(body.substr(keys.model_span.begin, keys.model_span.end - keys.model_span.begin), "whisper-1");
    EXPECT_EQ(body.substr(keys.priority_span.begin, keys.priority_span.end - keys.priority_span.begin), "-2");
    EXPECT_EQ(keys.stream, true);
    EXPECT_EQ(keys.priority, -2);
    EXPECT_EQ(keys.n, 3u);
    EXPECT_EQ(keys.routing_mode(), "any");
    EXPECT_EQ(keys.text_bytes, 9u + 4 + 2 + 1 + 3 + 5);
}

TEST(Multipart, ReadsHeadersAsClientsWriteThem) {
    for (
        std::string_view head : {
            "content-disposition:form-data;name=model"sv,
            "CONTENT-DISPOSITION: Form-Data; NAME=\"model\""sv,
            "Content-Disposition: form-data; name=\"model\";"sv,
            "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data;\t name=\"model\"\r\nX-A: b"sv,
            "Content-Disposition: form-data; x=\"a;name=\\\"b\\\"\"; name=\"model\""sv,
        }) {
        const std::string body = "--XyZ\r\n" + std::string(head) + "\r\n\r\nm\r\n--XyZ--";
        const MultipartScan scan = scan_every_way(body);
        EXPECT_FALSE(scan.failed()) << body << ": " << scan.error();
        EXPECT_EQ(scan.keys().model(), "m") << body;
    }
    EXPECT_EQ(scan_every_way("\r\n" + field("model", "m") + "--XyZ--\r\n").keys().model(), "m");
    EXPECT_EQ(scan_every_way(field("model", "a\r\nb\r") + "--XyZ--").keys().model(), "a\r\nb\r");
}

TEST(Multipart, TreatsEmptyAsAbsent) {
    const MultipartScan scan = scan_every_way(field("model", "") + field("stream", "") +
                                              field("priority", "") + field("n", "") + "--XyZ--");
    EXPECT_FALSE(scan.failed());
    EXPECT_TRUE(scan.keys().has_model);
    EXPECT_EQ(scan.keys().model(), "");
    EXPECT_FALSE(scan.keys().stream || scan.keys().priority || scan.keys().n);
    EXPECT_FALSE(scan_every_way(field("Model", "x") + field("model2", "x") + "--XyZ--").keys().has_model);
}

TEST(Multipart, RefusesDuplicatesAndWrongTypes) {
    for (std::string_view name : {"model", "stream", "priority", "n", "routing-mode"}) {
        const std::string one = field(name, name == "stream" ? "1" : "2");
        expect_refused(one + one + "--XyZ--", ErrorKind::duplicate, name);
        expect_refused("--XyZ\r\nContent-Disposition: form-data; name=" + std::string(name) +
                           "; filename=a\r\n\r\n1\r\n--XyZ--",
                       ErrorKind::wrong_type, name);
        expect_refused("--XyZ\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=" +
                           std::string(name) + "\r\n\r\n1\r\n--XyZ--",
                       ErrorKind::wrong_type, name);
    }
    for (std::string_view value : {"yes", "TRUE", " true", "2", "true\r\n"}) {
        expect_refused(field("stream", value) + "--XyZ--", ErrorKind::wrong_type, "stream");
    }
    for (std::string_view value : {"1.0", "x", " 1", "1 ", "+1", "2147483648", "1e1", "0x1"}) {
        expect_refused(field("priority", value) + "--XyZ--", ErrorKind::wrong_type, "priority");
    }
    expect_refused(field("n", "-1") + "--XyZ--", ErrorKind::wrong_type, "n");
    expect_refused(field("n", std::string(300, '1')) + "--XyZ--", ErrorKind::wrong_type, "n");
    expect_refused(field("model", "\xc3(") + "--XyZ--", ErrorKind::invalid_utf8, "model");
    expect_refused(field("model", "a\n\xe2\x82") + "--XyZ--", ErrorKind::invalid_utf8, "model");
    EXPECT_EQ(scan_every_way(field("stream", "False") + "--XyZ--").keys().stream, false);
}

TEST(Multipart, BoundsWhatItKeeps) {
    const std::string longest(ControlKeys::kMaxModel, 'm');
    EXPECT_EQ(scan_every_way(field("model", longest) + "--XyZ--").keys().model(), longest);
    expect_refused(field("model", longest + "m") + "--XyZ--", ErrorKind::value_too_long, "model");
    expect_refused(field("routing-mode", longest) + "--XyZ--", ErrorKind::value_too_long, "routing-mode");
    const std::string line(MultipartScan::kMaxHeaderLine - 3, 'h');
    EXPECT_EQ(scan_every_way("--XyZ\r\nA: " + line + "\r\n" + field("model", "m").substr(7) + "--XyZ--")
                  .keys()
                  .model(),
              "m");
    MultipartScan scan = scan_pieces("--XyZ\r\nA: " + line + "h\r\n", kType, 7, 100);
    EXPECT_EQ(scan.error_kind(), ErrorKind::too_large);
    std::string lines = "--XyZ\r\n";
    for (int i = 0; i < 5; ++i) {
        lines += "A: " + line + "\r\n";
    }
    EXPECT_EQ(scan_pieces(lines, kType, 7, 100).error_kind(), ErrorKind::too_large);
    std::string parts;
    for (uint32_t i = 0; i <= MultipartScan::kMaxParts; ++i) {
        parts += field("x", "");
    }
    EXPECT_EQ(scan_pieces(parts, kType, 5000, 5000).error_kind(), ErrorKind::too_large);
}

TEST(Multipart, RefusesWhatParsersReadDifferently) {
    expect_refused("", ErrorKind::empty);
    expect_refused("--XyZ", ErrorKind::truncated);
    expect_refused(field("model", "m"), ErrorKind::truncated);
    expect_refused(field("model", "m") + "--XyZ-", ErrorKind::truncated);
    expect_refused(field("model", "m") + "--XyZ", ErrorKind::truncated);
    const std::string bodies[] = {
        "preamble\r\n" + field("model", "m") + "--XyZ--",
        field("model", "m") + "--XyZ--\r\nepilogue",
        field("model", "m") + "--XyZ-x",
        field("model", "m") + "--XyZ \r\n",
        field("model", "m") + "--XyZa\r\n",
        "--XyZ\nContent-Disposition: form-data; name=model\n\nm\n--XyZ--",
        "--XyZ\r\rContent-Disposition",
        "--XyZ\r\nContent-Disposition: form-data; name=model\rx",
        "--XyZ\r\n\r\nm\r\n--XyZ--",
        "--XyZ\r\nContent-Type: text/plain\r\n\r\nm\r\n--XyZ--",
        "--XyZ\r\nno colon\r\n",
        "--XyZ\r\nContent-Disposition : form-data; name=model\r\n",
        "--XyZ\r\nContent-Disposition: form-data;\r\n name=model\r\n\r\n",
        "--XyZ\r\nContent-Disposition: attachment; name=model\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=a; name=model\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=a; name*=utf-8''model\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=\"mod\\el\"\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=\"model\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=\"model\\\"\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=\"model\" x\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=mo\"del\"\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; "
        "name=model\r\n\r\n",
        "--XyZ\r\nContent-Disposition: form-data; name=a" + std::string(1, '\0') + "\r\n\r\n",
    };
    for (const std::string& body : bodies) {
        expect_refused(body, ErrorKind::syntax);
    }
}

TEST(Multipart, SaysWhereItIsWrong) {
    const std::string good = field("model", "m");
    EXPECT_EQ(scan_every_way(good + "--XyZ!").error_offset(), good.size() + 6);
    EXPECT_EQ(scan_every_way(good + "--XyZ\r\nno colon\r\n").error_offset(), good.size() + 17);
    EXPECT_EQ(scan_every_way(good).error_offset(), good.size()) << "incomplete";
}

TEST(Multipart, ReadsTheBoundary) {
    const auto begins = [](std::string_view type) {
        MultipartScan scan;
        const bool ok = scan.begin(type);
        EXPECT_EQ(ok, !scan.failed());
        return ok;
    };
    const std::string longest(MultipartScan::kMaxBoundary, 'b');
    for (const std::string& type :
         {std::string("multipart/form-data; boundary=a"),
          std::string("Multipart/Form-Data;BOUNDARY=\"a b?\""),
          std::string(" multipart/form-data ; charset=utf-8; boundary=----WebKitFormBoundaryabc"),
          "multipart/form-data; boundary=" + longest}) {
        EXPECT_TRUE(begins(type)) << type;
        EXPECT_TRUE(MultipartScan::is_multipart(type));
    }
    for (const std::string& type :
         {std::string(""), std::string("multipart/form-data"), std::string("multipart/form-data; boundary="),
          std::string("multipart/form-data; boundary=\"\""),
          std::string("multipart/form-data; boundary=\"a \""),
          std::string("multipart/form-data; boundary=\"a"),
          std::string("multipart/form-data; boundary=a; boundary=b"),
          std::string("multipart/form-data; boundary=a\r\nb"),
          std::string("multipart/form-data; boundary=\"a\\b\""),
          std::string("multipart/form-data boundary=a"), std::string("multipart/mixed; boundary=a"),
          std::string("multipart/form-datax; boundary=a"),
          "multipart/form-data; boundary=" + longest + "b"}) {
        EXPECT_FALSE(begins(type)) << type;
    }
    EXPECT_FALSE(MultipartScan::is_multipart("application/json"));
    EXPECT_EQ(scan_every_way("--a b\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--a b--",
                             "multipart/form-data; boundary=\"a b\"")
                  .keys()
                  .model(),
              "m");
    MultipartScan unstarted;
    unstarted.feed("--a");
    EXPECT_FALSE(unstarted.finish());
}

}  // namespace
}  // namespace llm::core
