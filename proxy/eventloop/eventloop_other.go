//go:build !linux

package eventloop

// Loops are event loops.
type Loops struct{}

// New gives ErrUnsupported.
func New(Options) (*Loops, error) { return nil, ErrUnsupported }

// Add gives ErrUnsupported.
func (*Loops) Add(*Conn) error { return ErrUnsupported }

// Close has no effect.
func (*Loops) Close() {}

// Close implements net.Conn.
func (c *Conn) Close() error { return c.tcp.Close() }

// CloseRead shuts the reading side of the connection.
func (c *Conn) CloseRead() error { return c.tcp.CloseRead() }
