import { Pencil, RotateCcw, X } from 'lucide-react';
import { useEffect, useState } from 'react';
import { Button, IconButton } from '@/ui/button';
import { Input } from '@/ui/input';
import { boundKeys, keysOf, useAllCommands, type Command } from '../commands';
import { bindings, useOverrides } from './bindings';
import { chordOf, onMac, parseKeys } from './chord';
import { conflicts } from './sequencer';
import { Keys } from './shown';

const PAUSE_MS = 900;

/** Takes the next keys that are pressed: up to two chords, done after a pause. Escape gives up. */
function KeyRecorder({ onDone }: { onDone: (keys: string | undefined) => void }) {
  const [chords, setChords] = useState<readonly string[]>([]);
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      event.preventDefault();
      event.stopPropagation();
      if (event.key === 'Escape') {
        onDone(undefined);
        return;
      }
      const chord = chordOf(event);
      if (chord !== undefined && !event.repeat) setChords((before) => [...before, chord].slice(0, 2));
    };
    window.addEventListener('keydown', onKeyDown, { capture: true });
    return () => window.removeEventListener('keydown', onKeyDown, { capture: true });
  }, [onDone]);
  useEffect(() => {
    if (chords.length === 0) return;
    const timer = setTimeout(() => onDone(chords.join(' ')), chords.length === 2 ? 0 : PAUSE_MS);
    return () => clearTimeout(timer);
  }, [chords, onDone]);
  return (
    <span
      role="status"
      className="rounded-md border border-ring bg-accent-soft px-2 py-0.5 text-xs text-accent-fg"
    >
      {chords.length === 0 ? 'Press the keys, Esc to give up' : <Keys keys={chords.join(' ')} />}
    </span>
  );
}

function Row({ command, all }: { command: Command; all: readonly Command[] }) {
  const overrides = useOverrides();
  const [recording, setRecording] = useState(false);
  const keys = keysOf(command, overrides);
  const parsed = keys === undefined ? undefined : parseKeys(keys, onMac);
  const clash = parsed
    ? conflicts(boundKeys(all, overrides, onMac), command.id, parsed).map(
        (id) => all.find((one) => one.id === id)?.title ?? id,
      )
    : [];
  const [done] = useState(() => (chosen: string | undefined) => {
    setRecording(false);
    if (chosen !== undefined) bindings.set(command.id, chosen);
  });
  return (
    <li className="flex min-h-9 items-center gap-2 rounded-md px-2 hover:bg-hover">
      <span className="min-w-0 flex-1 text-sm">
        {command.title}
        {clash.length > 0 && <span className="ml-2 text-xs text-warn">Also: {clash.join(', ')}</span>}
      </span>
      {recording ? (
        <KeyRecorder onDone={done} />
      ) : (
        <>
          {keys === undefined ? <span className="text-xs text-fg-3">none</span> : <Keys keys={keys} />}
          <IconButton
            size="sm"
            icon={Pencil}
            label={`Change the keys of ${command.title}`}
            onClick={() => setRecording(true)}
          />
          {overrides[command.id] === undefined ? (
            <IconButton
              size="sm"
              icon={X}
              label={`Take the keys of ${command.title} away`}
              disabled={keys === undefined}
              onClick={() => bindings.set(command.id, '')}
            />
          ) : (
            <IconButton
              size="sm"
              icon={RotateCcw}
              label={`Give ${command.title} its own keys back`}
              onClick={() => bindings.set(command.id, null)}
            />
          )}
        </>
      )}
    </li>
  );
}

/** All commands that have or may have keys, by group, each to be given others. */
export function KeyEditor() {
  const all = useAllCommands();
  const overrides = useOverrides();
  const [filter, setFilter] = useState('');
  const wanted = filter.trim().toLowerCase();
  const shown = all.filter(
    (one) =>
      (one.keys !== undefined || overrides[one.id] !== undefined) &&
      `${one.group} ${one.title}`.toLowerCase().includes(wanted),
  );
  const groups = [...new Set(shown.map((one) => one.group))];
  return (
    <div className="flex flex-col gap-4">
      <div className="flex gap-2">
        <Input
          aria-label="Filter the commands"
          placeholder="Filter"
          value={filter}
          onChange={(event) => setFilter(event.target.value)}
        />
        <Button
          onClick={() => bindings.reset()}
          disabled={Object.keys(overrides).length === 0}
          className="h-9"
        >
          Reset all
        </Button>
      </div>
      {shown.length === 0 && <p className="py-6 text-center text-sm text-fg-2">No command fits.</p>}
      {groups.map((group) => (
        <section key={group} aria-label={group}>
          <h3 className="mb-1 px-2 text-xs font-medium text-fg-3">{group}</h3>
          <ul>
            {shown
              .filter((one) => one.group === group)
              .map((one) => (
                <Row key={one.id} command={one} all={all} />
              ))}
          </ul>
        </section>
      ))}
    </div>
  );
}
