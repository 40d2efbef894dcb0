/**
 * The terminal alone on a page, for trying it against a real server.
 *
 * `?env=…&session=…` shows one session, `&session=…&session=…` several in panes; `&view=1` only
 * watches. The sign-in is what the page has stored.
 */

import { StrictMode, Suspense, useState } from 'react';
import { createRoot } from 'react-dom/client';
import './harness.css';
import { LazyTerminalPanes, LazyTerminalView } from '@/terminal';
import { TooltipProvider } from '@/ui/tooltip';

const query = new URLSearchParams(location.search);
const environmentId = query.get('env') ?? '';
const sessions = query.getAll('session').map((id, at) => ({ id, environmentId, name: `session ${at + 1}` }));
const [only] = sessions;

function Harness() {
  const [title, setTitle] = useState('');
  return (
    <TooltipProvider>
      <main style={{ height: '100dvh', display: 'flex', flexDirection: 'column' }}>
        <h1 className="sr-only">{title}</h1>
        <div style={{ flex: 1, minHeight: 0 }}>
          <Suspense>
            {sessions.length > 1 || query.has('panes') ? (
              <LazyTerminalPanes workspace="harness" sessions={sessions} />
            ) : only === undefined ? null : (
              <LazyTerminalView
                sessionId={only.id}
                environmentId={environmentId}
                readOnly={query.has('view')}
                autoFocus
                onTitle={setTitle}
              />
            )}
          </Suspense>
        </div>
      </main>
    </TooltipProvider>
  );
}

const root = document.getElementById('root');
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <Harness />
    </StrictMode>,
  );
}
