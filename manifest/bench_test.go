package manifest

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
)

// manyImages makes a list of n manifests in the shape of images.smartos.org (or of a DSAPI server), 1.5 KB each.
func manyImages(n int, dsapi bool) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		id := uuid.UUID{0: byte(i), 1: byte(i >> 8), 2: byte(i >> 16), 8: 0x80, 15: byte(i * 7)}
		published := time.Unix(1_300_000_000+int64(i*7919%n)*1000, 0).UTC().Format("2006-01-02T15:04:05.000Z")
		rest := fmt.Sprintf(`"name":"base-64-lts-%d","version":"%d.4.0","os":"smartos","type":"zone-dataset","published_at":%q,`+
			`"description":%q,"requirements":{"min_platform":{"7.0":"20141030T081701Z"},"networks":[{"name":"net0","description":"public"}]},`+
			`"users":[{"name":"root"},{"name":"admin"}],"tags":{"role":"os","group":"base-%d"},"homepage":"https://docs.example.org/images/smartos/base",`+
			`"urn":"sdc:sdc:base-64-lts:%d"`, i%50, i%30, published, string(bytes.Repeat([]byte("An image for tests. "), 38)), i%9, i)
		if dsapi {
			fmt.Fprintf(&b, `{"uuid":%q,"creator_uuid":"352971aa-31ba-496c-9ade-a379feaecd52","vendor_uuid":"352971aa-31ba-496c-9ade-a379feaecd52",`+
				`"creator_name":"sdc","cloud_name":"sdc","platform_type":"smartos","created_at":%q,"updated_at":%q,%s,`+
				`"files":[{"path":"base-%d.zfs.gz","sha1":"%040x","size":%d,"url":"http://datasets.example.org/datasets/%s/base-%d.zfs.gz"}]}`,
				id, published, published, rest, i, i+1, 100_000_000+i, id, i)
		} else {
			fmt.Fprintf(&b, `{"v":2,"uuid":%q,"owner":"00000000-0000-0000-0000-000000000000","state":"active","disabled":false,"public":true,%s,`+
				`"files":[{"sha1":"%040x","size":%d,"compression":"gzip","dataset_guid":"17445958905298415%d"}]}`, id, rest, i+1, 100_000_000+i, i)
		}
	}
	b.WriteByte(']')
	return b.Bytes()
}

func mustList(tb testing.TB, data []byte) []Manifest {
	tb.Helper()
	images, skipped, err := ParseList(data, ParseOptions{})
	if err != nil || len(skipped) > 0 {
		tb.Fatal(err, skipped)
	}
	return images
}

func BenchmarkParseList(b *testing.B) {
	for _, dsapi := range []bool{false, true} {
		name := "v2"
		if dsapi {
			name = "v1"
		}
		b.Run(name, func(b *testing.B) {
			data := manyImages(1000, dsapi)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				mustList(b, data)
			}
		})
	}
}

// BenchmarkRestore reads what the index keeps, as at start.
func BenchmarkRestore(b *testing.B) {
	images := mustList(b, manyImages(1000, false))
	n, unpack := inPacks(images, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, refused := RestoreList(n, unpack, none, ParseOptions{}); refused != nil {
			b.Fatal(refused)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/manifest")
}

// BenchmarkParse reads one at a time, with all checks.
func BenchmarkParse(b *testing.B) {
	images := mustList(b, manyImages(1000, false))
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range images {
			if _, err := Parse(m.Raw(), ParseOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/manifest")
}

func BenchmarkMerge(b *testing.B) {
	n := 1000
	if os.Getenv("BENCH_LARGE") != "" {
		n = 100_000
	}
	ls := []Listing{
		{Source: "a", Images: mustList(b, manyImages(n, false))},
		{Source: "b", Images: mustList(b, manyImages(n, true))},
		{Source: "c", Images: mustList(b, manyImages(n/2, false))},
	}
	b.ReportAllocs()
	for b.Loop() {
		if images, conflicts := Merge(ls); len(images) != n || len(conflicts) != 0 {
			b.Fatal(len(images), conflicts)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	merged, _ := Merge([]Listing{{Source: "a", Images: mustList(b, manyImages(1000, false))}})
	images := make([]Manifest, len(merged))
	for i := range merged {
		images[i] = *merged[i].Manifest
	}
	for _, params := range [][][2]string{{{"limit", "10"}}, {{"name", "~lts-4"}}, {{"tag.group", "base-3"}}} {
		q, err := ParseQuery(params)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(params[0][0], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := q.Select(images, nil); err != nil || got.Len() == 0 {
					b.Fatal(got.Len(), err)
				}
			}
		})
	}
}

func BenchmarkV1(b *testing.B) {
	images := mustList(b, manyImages(1000, false))
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range images {
			m.V1("http://mirror:8080", "")
		}
	}
}
