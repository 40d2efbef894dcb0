import { Fragment } from 'react';
import { Kbd } from '@/ui/kbd';
import { keysOf, useAllCommands } from '../commands';
import { useOverrides } from './bindings';
import { keyCaps, onMac, parseKeys } from './chord';

/** Keys as key caps; a sequence with "then" for those who hear it. */
export function Keys({ keys }: { keys: string }) {
  const sequence = parseKeys(keys, onMac) ?? [];
  return (
    <span className="inline-flex shrink-0 items-center gap-1">
      {sequence.map((chord, index) => (
        <Fragment key={index}>
          {index > 0 && <span className="sr-only">then</span>}
          <span className="inline-flex gap-0.5">
            {keyCaps(chord, onMac).map((cap, place) => (
              <Kbd key={place}>{cap}</Kbd>
            ))}
          </span>
        </Fragment>
      ))}
    </span>
  );
}

/** The keys that a command has now, for tooltips and menus; nothing where it has none. */
export function CommandKeys({ id }: { id: string }) {
  const overrides = useOverrides();
  const command = useAllCommands().find((one) => one.id === id);
  const keys = command && keysOf(command, overrides);
  return keys === undefined ? null : <Keys keys={keys} />;
}
