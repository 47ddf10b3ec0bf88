// load is the load generator of the bench, the same for all servers: N connections, kept alive, a request
// on each as soon as the answer to the one before is complete. Bodies are dropped inside the kernel by
// recv(MSG_TRUNC), so that no byte of a file is copied. One thread; the result is a line of JSON.
//
//	load [-clients N] [-seconds S | -once] [-header "NAME: VALUE"]... [-status N] [-length N] http://ADDRESS:PORT/PATH
//
// With -seconds all connections are made before the clock starts, and the clock's end cuts running answers:
// their bytes count, their requests do not. With -once the clock starts before the connections are made, each
// client sends one request, and the clock stops with the last byte of the last client.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MOST_SECONDS 300 // of a run with -once

struct client {
	int fd, connecting, heading;
	size_t unsent, head_bytes;
	int64_t body_left;
	double asked; // since when the client waits, in seconds
	char head[16384];
};

struct times { // in milliseconds
	float *all;
	size_t n, room;
};

static struct sockaddr_in address;
static char request[8192];
static size_t request_bytes;
static int want_status = 200, once;
static int64_t want_length = -1;
static int poller;
static uint64_t requests, body_bytes, errors, reconnects;
static char fault[200];
static struct times took, firsts;

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
	perror(what);
	exit(1);
}

static void add(struct times *t, double seconds) {
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 1 << 16;
		if (!(t->all = realloc(t->all, t->room * sizeof *t->all))) die("realloc");
	}
	t->all[t->n++] = seconds * 1e3;
}

static int less(const void *a, const void *b) {
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static double quantile(struct times *t, double q) { // of sorted times
	return t->n ? t->all[(size_t)(q * (t->n - 1) + 0.5)] : 0;
}

static void fail(const char *format, ...) {
	va_list args;
	if (errors++) return;
	va_start(args, format);
	vsnprintf(fault, sizeof fault, format, args);
	va_end(args);
	for (char *c = fault; *c; c++)
		if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = '.';
}

static void watch(struct client *c, int op, uint32_t events) {
	struct epoll_event e = {.events = events, .data.ptr = c};
	if (epoll_ctl(poller, op, c->fd, &e) < 0) die("epoll_ctl");
}

// ask sends a request, whose time counts from since.
static void ask(struct client *c, double since) {
	c->heading = 1;
	c->head_bytes = 0;
	c->asked = since;
	ssize_t n = send(c->fd, request, request_bytes, MSG_NOSIGNAL);
	if (n != (ssize_t)request_bytes) fail("send: %s", n < 0 ? strerror(errno) : "short");
}

static void dial(struct client *c, int wait) {
	int on = 1;
	c->fd = socket(AF_INET, SOCK_STREAM | (wait ? 0 : SOCK_NONBLOCK), 0);
	if (c->fd < 0) die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c->connecting = 0;
	if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) {
		if (wait || errno != EINPROGRESS) die("connect");
		c->connecting = 1;
	}
	if (wait) fcntl(c->fd, F_SETFL, O_NONBLOCK);
	watch(c, EPOLL_CTL_ADD, c->connecting ? EPOLLOUT : EPOLLIN);
}

// done ends an answer, and tells whether the client has asked again.
static int done(struct client *c) {
	add(&took, now() - c->asked);
	requests++;
	if (once) {
		close(c->fd);
		c->fd = -1;
		return 0;
	}
	ask(c, now());
	return 1;
}

// header looks at the answer's header once the header is whole, and tells whether the header was right.
static int header(struct client *c, char *end) {
	int status = 0;
	int64_t length = -1;
	*end = 0;
	if (sscanf(c->head, "HTTP/1.1 %d", &status) != 1 || status != want_status) {
		fail("status %d, want %d", status, want_status);
		return 0;
	}
	for (char *line = strstr(c->head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
		if (!strncasecmp(line + 2, "Content-Length:", 15)) length = strtoll(line + 17, NULL, 10);
	if (status == 304 || status == 204) length = 0;
	if (length < 0 || (want_length >= 0 && length != want_length)) {
		fail("Content-Length %lld, want %lld", (long long)length, (long long)want_length);
		return 0;
	}
	size_t had = c->head_bytes - (end + 4 - c->head);
	body_bytes += had;
	c->body_left = length - had;
	c->heading = 0;
	if (c->body_left < 0) {
		fail("%lld bytes beyond the answer", (long long)-c->body_left);
		return 0;
	}
	return 1;
}

// receive takes one piece of an answer, and tells whether the connection is still in order.
static int receive(struct client *c) {
	if (!c->heading) {
		ssize_t n = recv(c->fd, NULL, c->body_left, MSG_TRUNC);
		if (n < 0 && errno == EAGAIN) return 1;
		if (n <= 0) {
			fail("%lld bytes of a body missing: %s", (long long)c->body_left, n < 0 ? strerror(errno) : "closed");
			return 0;
		}
		body_bytes += n;
		c->body_left -= n;
		if (c->body_left == 0) done(c);
		return 1;
	}
	ssize_t n = recv(c->fd, c->head + c->head_bytes, sizeof c->head - 1 - c->head_bytes, 0);
	if (n < 0 && errno == EAGAIN) return 1;
	if (n <= 0) {
		if (n == 0 && c->head_bytes == 0 && requests > 0 && !once) { // the server limits requests a connection
			reconnects++;
			close(c->fd);
			dial(c, 1);
			ask(c, now());
			return 1;
		}
		fail("no header: %s", n < 0 ? strerror(errno) : "closed");
		return 0;
	}
	if (c->head_bytes == 0) add(&firsts, now() - c->asked);
	c->head_bytes += n;
	c->head[c->head_bytes] = 0;
	char *end = memmem(c->head, c->head_bytes, "\r\n\r\n", 4);
	if (!end) {
		if (c->head_bytes == sizeof c->head - 1) fail("a header without an end");
		return c->head_bytes < sizeof c->head - 1;
	}
	if (!header(c, end)) return 0;
	if (c->body_left == 0) done(c);
	return 1;
}

static void parse_url(const char *url, const char *headers) {
	char host[64], path[4096] = "/";
	int port;
	if (sscanf(url, "http://%63[0-9.]:%d%4095s", host, &port, path) < 2) {
		fprintf(stderr, "load: want http://ADDRESS:PORT/PATH: %s\n", url);
		exit(2);
	}
	address.sin_family = AF_INET;
	address.sin_port = htons(port);
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die(host);
	request_bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: load\r\n%s\r\n", path, host, port, headers);
	if (request_bytes >= sizeof request) {
		fprintf(stderr, "load: the request is too long\n");
		exit(2);
	}
}

int main(int argc, char **argv) {
	int clients = 1, i = 1;
	double seconds = 1;
	char headers[4096] = "";
	for (; i < argc - 1 && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "-once")) once = 1;
		else if (!strcmp(argv[i], "-clients")) clients = atoi(argv[++i]);
		else if (!strcmp(argv[i], "-seconds")) seconds = atof(argv[++i]);
		else if (!strcmp(argv[i], "-status")) want_status = atoi(argv[++i]);
		else if (!strcmp(argv[i], "-length")) want_length = atoll(argv[++i]);
		else if (!strcmp(argv[i], "-header") && strlen(headers) + strlen(argv[i + 1]) + 3 < sizeof headers) strcat(strcat(headers, argv[++i]), "\r\n");
		else break;
	}
	if (i != argc - 1 || clients < 1) {
		fprintf(stderr, "usage: load [-clients N] [-seconds S | -once] [-header H]... [-status N] [-length N] URL\n");
		return 2;
	}
	parse_url(argv[i], headers);
	struct client *all = calloc(clients, sizeof *all);
	if (!all || (poller = epoll_create1(0)) < 0) die("start");
	if (!once)
		for (i = 0; i < clients; i++) dial(&all[i], 1);
	double start = now(), end = start + (once ? MOST_SECONDS : seconds);
	for (i = 0; i < clients; i++) {
		if (once) dial(&all[i], 0);
		if (!all[i].connecting) ask(&all[i], once ? start : now());
	}
	struct epoll_event events[256];
	while (!errors && !(once && requests == (uint64_t)clients)) {
		double left = end - now();
		if (left <= 0) break;
		int n = epoll_wait(poller, events, 256, (int)(left * 1e3) + 1);
		if (n < 0 && errno != EINTR) die("epoll_wait");
		for (i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;
			if (c->connecting) {
				c->connecting = 0;
				watch(c, EPOLL_CTL_MOD, EPOLLIN);
				ask(c, start);
			} else if (!receive(c)) {
				break;
			}
		}
	}
	double ran = now() - start;
	if (once && !errors && requests < (uint64_t)clients) fail("%d clients without an answer after %d s", clients - (int)requests, MOST_SECONDS);
	struct rusage own;
	getrusage(RUSAGE_SELF, &own);
	double cpu = own.ru_utime.tv_sec + own.ru_stime.tv_sec + (own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
	if (took.n) qsort(took.all, took.n, sizeof *took.all, less);
	if (firsts.n) qsort(firsts.all, firsts.n, sizeof *firsts.all, less);
	printf("{\"requests\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"cpu\":%.4f,\"p50\":%.4f,\"p99\":%.4f,\"max\":%.4f,"
	       "\"first_p50\":%.4f,\"first_max\":%.4f,\"reconnects\":%llu,\"errors\":%llu,\"fault\":\"%s\"}\n",
	       (unsigned long long)requests, (unsigned long long)body_bytes, ran, cpu, quantile(&took, 0.5), quantile(&took, 0.99), quantile(&took, 1),
	       quantile(&firsts, 0.5), quantile(&firsts, 1), (unsigned long long)reconnects, (unsigned long long)errors, fault);
	return 0;
}
