#include "ngx_module/web/dashboard.hpp"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <string_view>

// LLM_DASHBOARD is the path of the files without their endings, given by the build.
#define LLM_EMBED(name, ending)           \
    __asm__(                              \
        ".section .rodata\n"              \
        ".global llm_dashboard_" name     \
        "_begin\n"                        \
        ".hidden llm_dashboard_" name     \
        "_begin\n"                        \
        ".global llm_dashboard_" name     \
        "_end\n"                          \
        ".hidden llm_dashboard_" name     \
        "_end\n"                          \
        "llm_dashboard_" name             \
        "_begin:\n"                       \
        ".incbin \"" LLM_DASHBOARD ending \
        "\"\n"                            \
        "llm_dashboard_" name             \
        "_end:\n"                         \
        ".previous\n")
LLM_EMBED("html", ".html");
LLM_EMBED("css", ".css");
LLM_EMBED("charts", "_charts.js");
LLM_EMBED("js", ".js");

#define LLM_HIDDEN __attribute__((visibility("hidden")))
extern "C" {
extern const char llm_dashboard_html_begin[] LLM_HIDDEN;
extern const char llm_dashboard_html_end[] LLM_HIDDEN;
extern const char llm_dashboard_css_begin[] LLM_HIDDEN;
extern const char llm_dashboard_css_end[] LLM_HIDDEN;
extern const char llm_dashboard_charts_begin[] LLM_HIDDEN;
extern const char llm_dashboard_charts_end[] LLM_HIDDEN;
extern const char llm_dashboard_js_begin[] LLM_HIDDEN;
extern const char llm_dashboard_js_end[] LLM_HIDDEN;
}

namespace llm::nginx::web {
namespace {

std::string_view between(const char* begin, const char* end) {
    return {begin, static_cast<size_t>(end - begin)};
}

// 'sha256-…' of the text between the tags of an inline element, as CSP level 2 wants it.
std::string csp_hash(std::string_view text) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
    char encoded[4 * ((sizeof(digest) + 2) / 3) + 1];
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(encoded), digest, sizeof(digest));
    return "'sha256-" + std::string(encoded, static_cast<size_t>(size)) + "'";
}

void replace_mark(std::string& html, std::string_view mark, std::string_view open, std::string_view text,
                  std::string_view close) {
    std::string element(open);
    (element += text) += close;
    html.replace(html.find(mark), mark.size(), element);
}

Dashboard make() {
    const std::string_view css = between(llm_dashboard_css_begin, llm_dashboard_css_end);
    std::string js(between(llm_dashboard_charts_begin, llm_dashboard_charts_end));
    js += between(llm_dashboard_js_begin, llm_dashboard_js_end);
    Dashboard page;
    page.html = between(llm_dashboard_html_begin, llm_dashboard_html_end);
    replace_mark(page.html, "<!--style-->", "<style>", css, "</style>");
    replace_mark(page.html, "<!--script-->", "<script>", js, "</script>");
    page.policy =
        "default-src 'none'; script-src " + csp_hash(js) + "; style-src " + csp_hash(css) +
        "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    return page;
}

}  // namespace

const Dashboard& dashboard() {
    static const Dashboard page = make();
    return page;
}

}  // namespace llm::nginx::web
