// sendfile is the least that a file server can do, as measure of the others: for each request one open(2), one header,
// and sendfile(2) until the end; a thread a core, each with an epoll of its own.
//
//	sendfile PORT FOLDER
//
// serves FOLDER on 127.0.0.1: GET, one request at a time, keep-alive. It knows neither HEAD nor Range nor conditions.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_THREADS 256
#define TURN (8 << 20) // the most that one connection sends before another one has its turn

struct connection {
	int fd, file;
	int64_t left; // of the file that is being sent; 0: a request is awaited
	size_t have;
	char text[8192];
};

static int root;
static int pollers[MOST_THREADS];

static void die(const char *what) {
	perror(what);
	exit(1);
}

static void watch(int poller, struct connection *c, int op, uint32_t events) {
	struct epoll_event e = {.events = events, .data.ptr = c};
	if (epoll_ctl(poller, op, c->fd, &e) < 0) die("epoll_ctl");
}

// request takes what has arrived of a request, and answers it with a header. 0: the connection is over.
static int request(struct connection *c) {
	char path[4096], head[200];
	struct stat info;
	ssize_t n = recv(c->fd, c->text + c->have, sizeof c->text - 1 - c->have, 0);
	if (n <= 0) return n < 0 && errno == EAGAIN;
	c->have += n;
	c->text[c->have] = 0;
	if (!strstr(c->text, "\r\n\r\n")) return 1;
	c->have = 0;
	if (sscanf(c->text, "GET /%4095[^ ?]", path) != 1 || path[0] == '/' || strstr(path, "..")) return 0;
	c->file = openat(root, path, O_RDONLY | O_CLOEXEC);
	if (c->file < 0) return 0;
	if (fstat(c->file, &info) < 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
		close(c->file);
		return 0;
	}
	c->left = info.st_size;
	n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %lld\r\n\r\n", (long long)c->left);
	return send(c->fd, head, n, MSG_NOSIGNAL | MSG_MORE) == n;
}

// turn gives a connection its turn. 0: the connection is over.
static int turn(int poller, struct connection *c) {
	if (c->left == 0) {
		if (!request(c)) return 0;
		if (c->left == 0) return 1;
		watch(poller, c, EPOLL_CTL_MOD, EPOLLOUT);
	}
	ssize_t n = sendfile(c->fd, c->file, NULL, c->left < TURN ? c->left : TURN);
	if (n < 0 && errno == EAGAIN) return 1;
	if (n <= 0) return 0;
	c->left -= n;
	if (c->left > 0) return 1;
	close(c->file);
	watch(poller, c, EPOLL_CTL_MOD, EPOLLIN);
	return 1;
}

static void *serve(void *arg) {
	int poller = *(int *)arg;
	struct epoll_event events[64];
	for (;;) {
		int n = epoll_wait(poller, events, 64, -1);
		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			if (turn(poller, c)) continue;
			if (c->left > 0) close(c->file);
			close(c->fd);
			free(c);
		}
	}
	return NULL;
}

int main(int argc, char **argv) {
	if (argc != 3) {
		fprintf(stderr, "usage: sendfile PORT FOLDER\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), threads = sysconf(_SC_NPROCESSORS_ONLN);
	if ((root = open(argv[2], O_RDONLY | O_DIRECTORY)) < 0) die(argv[2]);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0) die("listen");
	if (threads < 1 || threads > MOST_THREADS) threads = 1;
	for (int i = 0; i < threads; i++) {
		pthread_t thread;
		if ((pollers[i] = epoll_create1(0)) < 0 || pthread_create(&thread, NULL, serve, &pollers[i])) die("thread");
	}
	for (unsigned i = 0;; i++) {
		struct connection *c = calloc(1, sizeof *c);
		if (!c) die("calloc");
		do c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		while (c->fd < 0 && (errno == EINTR || errno == ECONNABORTED));
		if (c->fd < 0) die("accept");
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		watch(pollers[i % threads], c, EPOLL_CTL_ADD, EPOLLIN);
	}
}
