// source is the image server behind the mirror and the caches: a folder over HTTP, at the speed of a line.
//
//	source PORT FOLDER [RATE]
//
// serves FOLDER on 127.0.0.1, with a thread a connection and sendfile(2). A path that is a folder is answered with the
// folder's file "index". RATE is in bytes a second for all connections together; without RATE nothing waits. GET
// and HEAD, one request at a time, keep-alive; neither Range nor conditions.
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
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int root;
static int64_t rate; // bytes a second; 0: no limit
static pthread_mutex_t line = PTHREAD_MUTEX_INITIALIZER;
static int64_t line_free; // when the line has sent all that was taken so far; nanoseconds
static int line_users; // files that are being sent

static void die(const char *what) {
	perror(what);
	exit(1);
}

static const int64_t second = 1000000000;

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * second + t.tv_nsec;
}

// begin and end stand around a file on the line. An idle line saves nothing up.
static void begin(void) {
	pthread_mutex_lock(&line);
	if (line_users++ == 0 && line_free < now()) line_free = now();
	pthread_mutex_unlock(&line);
}

static void end(void) {
	pthread_mutex_lock(&line);
	line_users--;
	pthread_mutex_unlock(&line);
}

// await waits for the line's turn to send n bytes. What is late by up to 100 ms is made up for.
static void await(int64_t n) {
	pthread_mutex_lock(&line);
	int64_t least = now() - second / 10;
	if (line_free < least) line_free = least;
	int64_t turn = line_free;
	line_free += n * second / rate;
	pthread_mutex_unlock(&line);
	struct timespec t = {.tv_sec = turn / second, .tv_nsec = turn % second};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

// send_file sends a whole file, and tells whether the client has the file.
static int send_file(int client, int file, int64_t size) {
	const int64_t piece = 128 << 10;
	for (int64_t left = size; left > 0;) {
		int64_t most = left;
		if (rate && most > piece) most = piece;
		if (rate) await(most);
		while (most > 0) {
			ssize_t n = sendfile(client, file, NULL, most);
			if (n <= 0) return 0;
			most -= n;
			left -= n;
		}
	}
	return 1;
}

// answer serves the request whose header is text, and tells whether the connection goes on.
static int answer(int client, char *text) {
	char method[8], path[4096], head[300];
	struct stat info;
	int file = -1, ok = 0;
	if (sscanf(text, "%7s /%4095[^ ?]", method, path) < 2) strcpy(path, ".");
	if (path[0] != '/' && !strstr(path, "..")) file = openat(root, path, O_RDONLY | O_CLOEXEC);
	const char *type = strchr(path, '.') ? "application/json" : "application/octet-stream";
	if (file >= 0 && fstat(file, &info) == 0 && S_ISDIR(info.st_mode)) {
		int folder = file;
		file = openat(folder, "index", O_RDONLY | O_CLOEXEC);
		close(folder);
		type = "application/json";
	}
	if (file < 0 || fstat(file, &info) < 0) {
		const char *none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
		ok = send(client, none, strlen(none), MSG_NOSIGNAL) > 0;
	} else {
		int body = !strcmp(method, "GET") && info.st_size > 0;
		int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %lld\r\n\r\n", type, (long long)info.st_size);
		begin();
		ok = send(client, head, n, MSG_NOSIGNAL | (body ? MSG_MORE : 0)) == n && (!body || send_file(client, file, info.st_size));
		end();
	}
	if (file >= 0) close(file);
	return ok;
}

static void *serve(void *arg) {
	int client = (int)(intptr_t)arg, on = 1;
	char text[16384];
	size_t have = 0;
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	for (;;) {
		ssize_t n = recv(client, text + have, sizeof text - 1 - have, 0);
		if (n <= 0) break;
		have += n;
		text[have] = 0;
		if (!strstr(text, "\r\n\r\n")) continue;
		if (!answer(client, text)) break;
		if (strcasestr(text, "\r\nConnection: close")) break;
		have = 0;
	}
	close(client);
	return NULL;
}

int main(int argc, char **argv) {
	if (argc < 3) {
		fprintf(stderr, "usage: source PORT FOLDER [RATE]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	if ((root = open(argv[2], O_RDONLY | O_DIRECTORY)) < 0) die(argv[2]);
	if (argc > 3) rate = atoll(argv[3]);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0) die("listen");
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 256 << 10);
	for (;;) {
		pthread_t thread;
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (client < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
		if (client < 0) die("accept");
		if (pthread_create(&thread, &attributes, serve, (void *)(intptr_t)client)) die("pthread_create");
	}
}
