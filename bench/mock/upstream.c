/* A mock of vLLM 0.32's OpenAI server for benchmarks: one thread, epoll, HTTP/1.1 with keep-alive.
 *
 *     upstream PORT MODEL [STEP_US]        (PORT 0: any free one; prints its URL once it serves)
 *
 * POST /v1/chat/completions answers `max_tokens` tokens, one a chunk, after 200 prompt ids. As vLLM it steps all running
 * streams together: each STEP_US microseconds every stream gets one token (0: as fast as they are taken; -1: none until the
 * step is changed). Ids and log-probs are sent only when the request asks for them; the response's id is `chatcmpl-` and the
 * request's X-Request-Id. POST /mock/step/N changes the step, GET /mock/running
 * counts the running streams. GET /health, /metrics and /v1/models; everything else is 404. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { PROMPT_IDS = 200, EVENTS = 256, LONGEST_HEAD = 65536, LONGEST_BODY = 1 << 26, MOST_TOKENS = 65536 };

typedef struct {
    char *data;
    size_t len, size;
} Buffer;

typedef struct Connection {
    int fd, wants_out;
    Buffer in, out;
    size_t sent; /* of `out` */
    int total, at, ids, logprobs, usage; /* the stream under way: `total` 0 means none */
    char id[160], model[160];
    struct Connection *prev, *next; /* the running streams */
} Connection;

static Connection running = {.prev = &running, .next = &running};
static const char *served;
static char prompt_ids[PROMPT_IDS * 8];
static long step_us, streams;
static int epoll_fd, timer_fd;

static void reserve(Buffer *b, size_t more) {
    if (b->len + more <= b->size) return;
    b->size = (b->len + more) * 2;
    if ((b->data = realloc(b->data, b->size)) == NULL) abort();
}

static void add(Buffer *b, const char *format, ...) {
    va_list args;
    reserve(b, 512);
    for (;;) {
        va_start(args, format);
        size_t room = b->size - b->len, wrote = (size_t)vsnprintf(b->data + b->len, room, format, args);
        va_end(args);
        if (wrote < room) {
            b->len += wrote;
            return;
        }
        reserve(b, wrote + 1);
    }
}

/* The value after `"key":` and white space, or NULL. A key with its quotes cannot occur inside a JSON string. */
static const char *value(const Buffer *body, const char *key) {
    const char *end = body->data + body->len, *found = memmem(body->data, body->len, key, strlen(key));
    if (found == NULL) return NULL;
    for (found += strlen(key); found < end && (*found == ' ' || *found == ':'); found++) {}
    return found < end ? found : NULL;
}

static int is_true(const Buffer *body, const char *key) {
    const char *found = value(body, key);
    return found != NULL && *found == 't';
}

static long number(const Buffer *body, const char *key) {
    const char *found = value(body, key);
    return found == NULL ? 0 : atol(found); /* the buffer ends in NUL */
}

static void copy_word(char *to, size_t room, const char *from) {
    size_t n = 0;
    while (from != NULL && n + 1 < room && from[n] > ' ' && from[n] != '"' && from[n] != '\\') n++;
    if (n > 0) memcpy(to, from, n);
    to[n] = 0;
}

static void leave(Connection *c) {
    if (c->prev != NULL) c->prev->next = c->next, c->next->prev = c->prev, streams--;
    c->prev = c->next = NULL;
    c->total = 0;
}

static void drop(Connection *c) {
    leave(c);
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

/* Send what is buffered; 0 if the connection is closed. */
static int flush(Connection *c) {
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) return 0;
        if (n < 0) break;
        c->sent += (size_t)n;
    }
    if (c->sent == c->out.len) c->sent = c->out.len = 0;
    int wants = c->out.len > 0;
    if (wants != c->wants_out) {
        struct epoll_event event = {.events = EPOLLIN | (wants ? EPOLLOUT : 0u), .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
        c->wants_out = wants;
    }
    return 1;
}

static int reply(Connection *c, const char *status, const char *body, size_t length) {
    add(&c->out, "HTTP/1.1 %s\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", status, length);
    reserve(&c->out, length);
    memcpy(c->out.data + c->out.len, body, length);
    c->out.len += length;
    return flush(c);
}

static void add_logprob(Buffer *b, int at) {
    add(b, "{\"token\":\" w%02d\",\"logprob\":-%d.%07d5,\"bytes\":[32,119,%d,%d],\"top_logprobs\":[]}", at % 100, at % 3, 1234567 + at * 977,
        48 + at / 10 % 10, 48 + at % 10);
}

/* One server-sent event as one HTTP chunk. */
static void add_event(Buffer *out, Buffer *event) {
    add(out, "%zx\r\n", event->len);
    reserve(out, event->len + 2);
    memcpy(out->data + out->len, event->data, event->len);
    memcpy(out->data + out->len + event->len, "\r\n", 2);
    out->len += event->len + 2;
    event->len = 0;
}

static void add_head(Buffer *b, const Connection *c, const char *object) {
    add(b, "{\"id\":\"chatcmpl-%s\",\"object\":\"%s\",\"created\":%ld,\"model\":\"%s\",\"choices\":[", c->id, object, (long)time(NULL), c->model);
}

static void add_usage(Buffer *b, const Connection *c) {
    add(b, "\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d", PROMPT_IDS, PROMPT_IDS + c->total, c->total);
}

static void begin_stream(Connection *c) {
    Buffer event = {0};
    add(&c->out, "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
    add(&event, "data: ");
    add_head(&event, c, "chat.completion.chunk");
    add(&event, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":");
    if (c->ids) add(&event, "[%s]", prompt_ids);
    else add(&event, "null");
    add(&event, ",\"prompt_text\":null}\n\n");
    add_event(&c->out, &event);
    free(event.data);
    c->at = 0;
    c->next = &running, c->prev = running.prev;
    running.prev->next = c, running.prev = c;
    streams++;
}

/* Send the stream's next token; 0 if the connection is closed. */
static int step(Connection *c) {
    static Buffer event;
    add(&event, "data: ");
    add_head(&event, c, "chat.completion.chunk");
    add(&event, "{\"index\":0,\"delta\":{\"content\":\" w%02d\"},\"logprobs\":", c->at % 100);
    if (c->logprobs) add(&event, "{\"content\":["), add_logprob(&event, c->at), add(&event, "]}");
    else add(&event, "null");
    c->at++;
    add(&event, c->at == c->total ? ",\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":" : ",\"finish_reason\":null,\"token_ids\":");
    if (c->ids) add(&event, "[%d]}]}\n\n", 1000 + c->at - 1);
    else add(&event, "null}]}\n\n");
    add_event(&c->out, &event);
    if (c->at == c->total) {
        if (c->usage) {
            add(&event, "data: ");
            add_head(&event, c, "chat.completion.chunk");
            add(&event, "],"), add_usage(&event, c), add(&event, "},\"system_fingerprint\":\"vllm-0.32.0-74e8463f\"}\n\n");
            add_event(&c->out, &event);
        }
        add(&event, "data: [DONE]\n\n");
        add_event(&c->out, &event);
        add(&c->out, "0\r\n\r\n");
        leave(c);
    }
    return flush(c);
}

static int whole(Connection *c) {
    Buffer b = {0};
    add_head(&b, c, "chat.completion");
    add(&b, "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"");
    for (int i = 0; i < c->total; i++) add(&b, " w%02d", i % 100);
    add(&b, "\",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"reasoning\":null},\"logprobs\":");
    if (c->logprobs) add(&b, "{\"content\":[");
    for (int i = 0; i < c->total && c->logprobs; i++) add(&b, i ? "," : ""), add_logprob(&b, i);
    add(&b, c->logprobs ? "]}" : "null");
    add(&b, ",\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":");
    if (c->ids) add(&b, "[");
    for (int i = 0; i < c->total && c->ids; i++) add(&b, i ? ",%d" : "%d", 1000 + i);
    add(&b, c->ids ? "]" : "null");
    add(&b, ",\"routed_experts\":null}],\"service_tier\":null,\"system_fingerprint\":\"vllm-0.32.0-74e8463f\",");
    add_usage(&b, c);
    add(&b, ",\"prompt_tokens_details\":null,\"completion_tokens_details\":null},\"prompt_logprobs\":null,\"prompt_token_ids\":");
    if (c->ids) add(&b, "[%s]", prompt_ids);
    else add(&b, "null");
    add(&b, ",\"prompt_text\":null,\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
    c->total = 0;
    int alive = reply(c, "200 OK", b.data, b.len);
    free(b.data);
    return alive;
}

static int chat(Connection *c, const Buffer *body, const char *request_id) {
    static unsigned long minted;
    long asked = number(body, "\"max_completion_tokens\"");
    const char *model = value(body, "\"model\"");
    if (asked == 0) asked = number(body, "\"max_tokens\"");
    c->total = asked < 1 ? 16 : asked > MOST_TOKENS ? MOST_TOKENS : (int)asked;
    c->ids = is_true(body, "\"return_token_ids\"");
    c->logprobs = is_true(body, "\"logprobs\"");
    c->usage = is_true(body, "\"include_usage\"");
    copy_word(c->model, sizeof c->model, model != NULL && *model == '"' ? model + 1 : served);
    copy_word(c->id, sizeof c->id, request_id);
    if (c->id[0] == 0) snprintf(c->id, sizeof c->id, "%032lx", ++minted);
    if (!is_true(body, "\"stream\"")) return whole(c);
    /* The first token comes with the first chunk, each later one at a step. */
    begin_stream(c);
    return flush(c) && (step_us < 0 || step(c));
}

static void set_step(long us) {
    struct itimerspec every = {0};
    step_us = us;
    if (us > 0) {
        every.it_interval.tv_sec = every.it_value.tv_sec = us / 1000000;
        every.it_interval.tv_nsec = every.it_value.tv_nsec = us % 1000000 * 1000;
    }
    timerfd_settime(timer_fd, 0, &every, NULL);
}

static const char *header(const char *head, const char *name) {
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, strlen(name)) != 0) continue;
        for (line += strlen(name); *line == ' '; line++) {}
        return line;
    }
    return NULL;
}

static int answer(Connection *c, const char *head, const Buffer *body) {
    char list[512];
    const char *path = strchr(head, ' ');
    if (path == NULL) return 0;
    path++;
    if (strncmp(path, "/v1/chat/completions ", 21) == 0) return chat(c, body, header(head, "x-request-id:"));
    if (strncmp(path, "/health ", 8) == 0) return reply(c, "200 OK", "", 0);
    if (strncmp(path, "/mock/step/", 11) == 0) {
        set_step(atol(path + 11));
        return reply(c, "200 OK", "{}", 2);
    }
    if (strncmp(path, "/mock/running ", 14) == 0) return reply(c, "200 OK", list, (size_t)snprintf(list, sizeof list, "%ld", streams));
    if (strncmp(path, "/metrics ", 9) == 0) {
        const char *labels = "engine=\"0\",model_name=";
        int n = snprintf(list, sizeof list, "vllm:num_requests_running{%s\"%s\"} %ld.0\nvllm:num_requests_waiting{%s\"%s\"} 0.0\n", labels, served,
                         streams, labels, served);
        return reply(c, "200 OK", list, (size_t)n);
    }
    if (strncmp(path, "/v1/models ", 11) == 0) {
        int n = snprintf(list, sizeof list,
                         "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\",\"root\":\"%s\","
                         "\"parent\":null,\"max_model_len\":1048576}]}",
                         served, served);
        return reply(c, "200 OK", list, (size_t)n);
    }
    return reply(c, "404 Not Found", "{\"detail\":\"Not Found\"}", 22);
}

/* Read what has arrived and answer each complete request; 0 if the connection must be dropped. */
static int take(Connection *c) {
    for (;;) {
        reserve(&c->in, 16384);
        ssize_t n = recv(c->fd, c->in.data + c->in.len, c->in.size - c->in.len - 1, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) return 0;
        c->in.len += (size_t)n;
        if (c->in.len + 1 < c->in.size) break; /* fewer bytes than there was room for: nothing more has arrived */
    }
    while (c->in.len > 0 && c->total == 0) {
        c->in.data[c->in.len] = 0;
        char *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
        if (end == NULL) return c->in.len < LONGEST_HEAD;
        end[2] = 0; /* ends the head as a string */
        const char *declared = header(c->in.data, "content-length:");
        size_t head = (size_t)(end - c->in.data) + 4, length = declared == NULL ? 0 : strtoul(declared, NULL, 10);
        if (length > LONGEST_BODY || header(c->in.data, "transfer-encoding:") != NULL) return 0;
        if (c->in.len < head + length) {
            end[2] = '\r';
            return 1;
        }
        char kept = c->in.data[head + length];
        c->in.data[head + length] = 0;
        Buffer body = {c->in.data + head, length, length};
        if (!answer(c, c->in.data, &body)) return 0;
        c->in.data[head + length] = kept;
        memmove(c->in.data, c->in.data + head + length, c->in.len - head - length);
        c->in.len -= head + length;
    }
    return 1;
}

static void step_all(void) {
    for (Connection *c = running.next, *next; c != &running; c = next) {
        next = c->next;
        if (c->out.len == 0 && !step(c)) drop(c); /* a client that does not read gets no more */
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 4096) != 0) return -1;
    getsockname(fd, (struct sockaddr *)&at, &size);
    printf("http://127.0.0.1:%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_all(int listener) {
    int on = 1;
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        Connection *c = calloc(1, sizeof *c);
        if (c == NULL) abort();
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void serve(int listener) {
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, step_us == 0 && running.next != &running ? 0 : -1), tick = step_us == 0;
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            unsigned long expired;
            if ((void *)c == &running) accept_all(listener);
            else if ((void *)c == &timer_fd) tick |= read(timer_fd, &expired, sizeof expired) > 0;
            else if ((events[i].events & EPOLLOUT && !flush(c)) || (events[i].events & ~EPOLLOUT && !take(c))) drop(c);
        }
        if (tick) step_all();
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: upstream PORT MODEL [STEP_US]\n"), 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    served = argv[2];
    for (int i = 0, at = 0; i < PROMPT_IDS; i++) at += sprintf(prompt_ids + at, i ? ",%d" : "%d", 1 + i * 37 % 49152);
    int listener = listen_on(atoi(argv[1]));
    if (listener < 0) return perror("upstream"), 1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event accepts = {.events = EPOLLIN, .data.ptr = &running}, ticks = {.events = EPOLLIN, .data.ptr = &timer_fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &accepts);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &ticks);
    set_step(argc > 3 ? atol(argv[3]) : 0);
    serve(listener);
}
