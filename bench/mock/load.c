/* A load generator for OpenAI-shaped chat completions: one thread, epoll, HTTP/1.1 with keep-alive.
 *
 *     load HOST PORT PATH BODY_FILE [option value]...
 *       -c N   closed loop: N connections, each asks again once it has its answer (default 1)
 *       -r R   open loop: R requests a second, evenly spaced; a late one's times count from when it was due
 *       -d S   for S seconds (default 5); those under way then are waited for, up to -w S more (default 10)
 *       -n N   ends after N requests instead
 *       -h H   a header line; may be repeated
 *
 * Prints one JSON object. An answer is `ok` if it is 200 and whole: a stream ends with `[DONE]` and no error event, any other
 * has a finish_reason. `ttft_us` is the time to the first byte of each ok answer's body, `total_us` to its end. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, ROOM = 1 << 16, MOST = 8192, TAIL = 16 };
enum { REFUSED, STATUS, CUT, NO_DONE, ERROR_EVENT, LATE, KINDS };
static const char *const KIND[KINDS] = {"connect", "status", "cut", "no_done", "error_event", "unfinished"};

typedef struct Connection {
    int fd, busy, status, chunked, in_body, stream, done, failed, found_finish;
    long left;          /* bytes of the body, or of the chunk, still to come; -1: a chunk's size comes next */
    size_t sent, held;  /* of the request; of `text`, kept from the last read */
    double due, first;
    char text[ROOM + 1], tail[TAIL * 2], id[96];
    struct Connection *idle;
} Connection;

static struct sockaddr_in address;
static char *request, last_id[96];
static size_t request_len;
static Connection *idle_list;
static float *ttfts, *totals;
static long kept, room, ok, errors[KINDS], events_seen, leaks, sent, bytes, under_way, opened;
static int epoll_fd;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void keep(double ttft, double total) {
    if (kept == room) {
        room = room ? room * 2 : 65536;
        ttfts = realloc(ttfts, (size_t)room * sizeof *ttfts);
        totals = realloc(totals, (size_t)room * sizeof *totals);
        if (ttfts == NULL || totals == NULL) abort();
    }
    ttfts[kept] = (float)(ttft * 1e6);
    totals[kept++] = (float)(total * 1e6);
}

static Connection *open_connection(void) {
    Connection *c = calloc(1, sizeof *c);
    int on = 1;
    if (c == NULL || opened >= MOST) return free(c), NULL;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) return close(c->fd), free(c), NULL;
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
    opened++;
    return c;
}

/* End the request under way, and close the connection unless it is reusable. */
static void end(Connection *c, int kind, int reusable) {
    if (c->busy) {
        under_way--;
        if (kind < 0) ok++, keep(c->first - c->due, now() - c->due), memcpy(last_id, c->id, sizeof last_id);
        else errors[kind]++;
    }
    c->busy = 0;
    if (reusable) {
        c->idle = idle_list;
        idle_list = c;
        return;
    }
    for (Connection **at = &idle_list; *at != NULL; at = &(*at)->idle) {
        if (*at == c) {
            *at = c->idle;
            break;
        }
    }
    close(c->fd); /* not freed: an event of this round may still point to it */
    c->fd = -1;
    opened--;
}

static int push(Connection *c) {
    while (c->sent < request_len) {
        ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) return 0;
        if (n < 0) break;
        c->sent += (size_t)n;
    }
    struct epoll_event event = {.events = EPOLLIN | (c->sent < request_len ? EPOLLOUT : 0u), .data.ptr = c};
    if (request_len > ROOM) epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    return 1;
}

/* Send a request. 0: no connection could be opened. */
static int ask(double due) {
    Connection *c = idle_list;
    if (c != NULL) idle_list = c->idle;
    else c = open_connection();
    sent++;
    if (c == NULL) {
        errors[REFUSED]++;
        return 0;
    }
    c->busy = 1, c->due = due, c->first = 0, c->sent = c->held = 0;
    c->status = c->chunked = c->in_body = c->stream = c->done = c->failed = c->found_finish = 0;
    c->left = 0, c->id[0] = 0;
    memset(c->tail, 0, sizeof c->tail);
    under_way++;
    if (!push(c)) end(c, CUT, 0);
    return 1;
}

/* Search a piece of the body. What is searched may lie across two pieces, so the last bytes of each are searched again. */
static void look(Connection *c, const char *piece, size_t n) {
    char seam[TAIL * 4 + 1];
    size_t old = strlen(c->tail), begin = n < TAIL * 2 ? n : TAIL * 2, last = n < TAIL ? n : TAIL;
    if (c->first == 0) c->first = now();
    memcpy(seam, c->tail, old);
    memcpy(seam + old, piece, begin);
    if (!c->done) c->done = memmem(piece, n, "data: [DONE]", 12) != NULL || memmem(seam, old + begin, "data: [DONE]", 12) != NULL;
    if (!c->failed) c->failed = memmem(piece, n, "data: {\"error\"", 14) != NULL;
    if (!c->found_finish) c->found_finish = memmem(piece, n, "\"finish_reason\":", 16) != NULL;
    if (memmem(piece, n, "\"token_ids\":[", 13) != NULL || memmem(piece, n, "\"prompt_token_ids\":[", 20) != NULL) leaks++;
    if (c->id[0] == 0) {
        const char *id = memmem(piece, n, "\"id\":\"", 6);
        size_t size = 0;
        if (id != NULL) {
            for (id += 6; id + size < piece + n && size + 1 < sizeof c->id && id[size] != '"'; size++) c->id[size] = id[size];
            c->id[size] = 0;
        }
    }
    for (const char *at = piece; (at = memmem(at, (size_t)(piece + n - at), "\ndata: ", 7)) != NULL; at += 7) events_seen++;
    if (n >= 6 && memcmp(piece, "data: ", 6) == 0) events_seen++;
    memcpy(seam, piece + n - last, last);
    memcpy(c->tail, seam, last);
    c->tail[last] = 0;
    bytes += (long)n;
}

static int verdict(const Connection *c) {
    if (c->status != 200) return STATUS;
    if (c->failed) return ERROR_EVENT;
    return (c->stream ? c->done : c->found_finish) ? -1 : NO_DONE;
}

static const char *field(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    return at == NULL ? NULL : at + strlen(name);
}

/* The length of the response's head in `text`; 0 if it is not complete yet. */
static size_t read_head(Connection *c, size_t n) {
    c->text[n] = 0;
    char *last = strstr(c->text, "\r\n\r\n");
    if (last == NULL) return 0;
    last[2] = 0;
    const char *length = field(c->text, "\r\ncontent-length:");
    c->status = atoi(c->text + 9);
    c->stream = field(c->text, "text/event-stream") != NULL;
    c->chunked = field(c->text, "\r\ntransfer-encoding:") != NULL;
    c->left = c->chunked ? -1 : length == NULL ? 0 : atol(length);
    c->in_body = 1;
    return (size_t)(last - c->text) + 4;
}

/* Read `n` bytes of the body; 1 once it is complete. `*used` of them were consumed. */
static int read_body(Connection *c, const char *data, size_t n, size_t *used) {
    *used = 0;
    while (*used < n) {
        const char *at = data + *used;
        size_t rest = n - *used;
        if (c->left < 0) { /* a line with a size, after the CR LF of the chunk before it, if there was one */
            const char *line = memmem(at + 1, rest - 1, "\r\n", 2);
            if (line == NULL) return 0;
            c->left = strtol(at, NULL, 16); /* skips the CR LF as white space */
            *used = (size_t)(line - data) + 2;
            if (c->left == 0) return 1;
            continue;
        }
        size_t take = rest < (size_t)c->left ? rest : (size_t)c->left;
        look(c, at, take);
        *used += take;
        c->left -= (long)take;
        if (c->left == 0 && !c->chunked) return 1;
        if (c->left == 0) c->left = -1;
    }
    return !c->chunked && c->left == 0;
}

/* Read what has arrived. 1: the answer is complete; 0: more is to come; -1: the connection broke. */
static int take(Connection *c) {
    for (;;) {
        ssize_t got = recv(c->fd, c->text + c->held, ROOM - c->held, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (got <= 0 || !c->busy) return -1;
        size_t n = c->held + (size_t)got, used = 0, head = 0;
        if (!c->in_body && (head = read_head(c, n)) == 0) {
            if ((c->held = n) == ROOM) return -1;
            continue;
        }
        if (read_body(c, c->text + head, n - head, &used)) return 1;
        c->held = n - head - used;
        memmove(c->text, c->text + head + used, c->held);
    }
}

static void print_times(const char *name, const float *times) {
    printf(",\"%s\":[", name);
    for (long i = 0; i < kept; i++) printf(i ? ",%.0f" : "%.0f", (double)times[i]);
    printf("]");
}

static void print_report(double seconds) {
    printf("{\"sent\":%ld,\"ok\":%ld,\"seconds\":%.4f,\"events\":%ld,\"bytes\":%ld,\"leaks\":%ld,\"last_id\":\"%s\",\"errors\":{", sent, ok, seconds,
           events_seen, bytes, leaks, last_id);
    for (int i = 0; i < KINDS; i++) printf("%s\"%s\":%ld", i ? "," : "", KIND[i], errors[i]);
    printf("}");
    print_times("ttft_us", ttfts);
    print_times("total_us", totals);
    printf("}\n");
}

static char *read_file(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    char *data = malloc(1 << 27);
    if (file == NULL || data == NULL) return NULL;
    *n = fread(data, 1, 1 << 27, file);
    fclose(file);
    return data;
}

static double rate, seconds = 5, patience = 10;
static long closed = 1, count = 0;
static char headers[8192];

static int options(int argc, char **argv) {
    for (int i = 5; i + 1 < argc; i += 2) {
        const char *v = argv[i + 1];
        if (strcmp(argv[i], "-c") == 0) closed = atol(v);
        else if (strcmp(argv[i], "-r") == 0) rate = atof(v);
        else if (strcmp(argv[i], "-d") == 0) seconds = atof(v);
        else if (strcmp(argv[i], "-w") == 0) patience = atof(v);
        else if (strcmp(argv[i], "-n") == 0) count = atol(v);
        else if (strcmp(argv[i], "-h") == 0 && strlen(headers) + strlen(v) + 3 < sizeof headers) strcat(strcat(headers, v), "\r\n");
        else return 0;
    }
    return argc >= 5;
}

static void handle(const struct epoll_event *event) {
    Connection *c = event->data.ptr;
    if (c->fd < 0) return;
    if (event->events & EPOLLOUT && !push(c)) {
        end(c, CUT, 0);
        return;
    }
    int state = take(c);
    if (state == 1) end(c, verdict(c), 1);
    else if (state < 0) end(c, CUT, 0);
}

static void run(void) {
    static struct epoll_event events[EVENTS];
    double began = now();
    for (;;) {
        double t = now();
        int over = count > 0 ? sent >= count : t - began >= seconds;
        if (over && (under_way == 0 || t - began > seconds + patience)) break;
        while (!over && (rate > 0 ? (double)sent <= (t - began) * rate : under_way < closed)) {
            int asked = ask(rate > 0 ? began + (double)sent / rate : now());
            over = count > 0 && sent >= count;
            if (!asked) break; /* otherwise this would never end once nothing listens */
        }
        /* Wake at the due time instead of up to a millisecond later. */
        double until = over ? 0.05 : rate > 0 ? began + (double)sent / rate - now() : 0.05;
        struct timespec wait = {0, until > 0 ? (long)((until > 0.05 ? 0.05 : until) * 1e9) : 0};
        int n = epoll_pwait2(epoll_fd, events, EVENTS, &wait, NULL);
        for (int i = 0; i < n; i++) handle(&events[i]);
    }
    errors[LATE] = under_way;
    print_report(now() - began);
}

int main(int argc, char **argv) {
    size_t length = 0;
    if (!options(argc, argv)) return fprintf(stderr, "usage: load HOST PORT PATH BODY_FILE [-c N | -r R] [-d S | -n N] [-w S] [-h HEADER]...\n"), 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char *body = read_file(argv[4], &length);
    if (body == NULL) return perror(argv[4]), 1;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    request = malloc(length + sizeof headers + 1024);
    if (request == NULL) return 1;
    int head = sprintf(request, "POST %s HTTP/1.1\r\nhost: %s:%s\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n", argv[3], argv[1],
                       argv[2], headers, length);
    memcpy(request + head, body, length);
    request_len = (size_t)head + length;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run();
    return 0;
}
