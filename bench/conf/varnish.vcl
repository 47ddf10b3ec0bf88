# Varnish as the bench runs it: objects in memory, streamed to clients while they come.
vcl 4.1;

backend source {
	.host = "127.0.0.1";
	.port = "{{.SourcePort}}";
}

sub vcl_backend_response {
	set beresp.do_stream = true;
	set beresp.ttl = 1d;
}
