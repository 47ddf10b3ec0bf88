package mirror

import (
	"imgmirror/proxy/nodes"
)

// notesOfNodes is the kind of the journal's notes in the index.
const notesOfNodes = "nodes"

// newNodes makes the journal of nodes. Nothing is read yet.
func (m *Mirror) newNodes(r Rules) *nodes.Journal {
	return nodes.New(nodes.Options{
		Limits: r.Nodes, Notes: m.store.Notes(notesOfNodes),
		Logger: m.log.With("component", "nodes"), Registerer: m.registry,
	})
}

// Nodes is the journal of the addresses that ask.
func (m *Mirror) Nodes() *nodes.Journal { return m.nodes }
