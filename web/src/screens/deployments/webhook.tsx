import { Trash2, Webhook } from 'lucide-react';
import { useState } from 'react';
import { useMakeHook, useRemoveHook, type CoolifyConnection, type HookOf } from '@/api/coolify';
import { Section } from '@/app/page';
import { Button } from '@/ui/button';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { ShownOnce } from '../account/shown-once';

/** An address that Coolify tells news to. `hook` is undefined where nobody tells whether there is one. */
export function WebhookSection({ of, hook }: { of: HookOf; hook: CoolifyConnection['hook'] | undefined }) {
  const make = useMakeHook(of);
  const [asking, setAsking] = useState<'replace' | 'remove'>();
  const [made, setMade] = useState<string>();
  const there = hook !== null;
  const begin = () =>
    make.mutate(undefined, {
      onSuccess: ({ url }) => {
        setAsking(undefined);
        setMade(url);
      },
    });
  return (
    <Section title={of === 'hook' ? 'Webhook' : 'The server’s webhook'}>
      <Card className="flex flex-col gap-3 p-4">
        <p className="text-sm text-fg-2">
          {of === 'hook'
            ? 'Not needed, but then a change is seen at once instead of some seconds later. Coolify gets an address of its own to tell news to.'
            : 'The same for the connection that everybody on this server may use.'}
        </p>
        {hook && (
          <p className="flex flex-wrap gap-x-3 text-sm text-fg-3">
            <span>
              Made <Ago at={hook.createdAt} />
            </span>
            <span>
              {hook.lastUsedAt === null ? (
                'Nothing came yet'
              ) : (
                <>
                  News came <Ago at={hook.lastUsedAt} />
                </>
              )}
            </span>
          </p>
        )}
        {make.isError && asking === undefined && <ErrorNote error={make.error} />}
        <div className="flex flex-wrap gap-2">
          <Button
            icon={Webhook}
            busy={make.isPending && asking === undefined}
            onClick={() => (there ? setAsking('replace') : begin())}
          >
            {there ? 'Make a new address…' : 'Make an address'}
          </Button>
          {there && (
            <Button variant="danger-ghost" icon={Trash2} onClick={() => setAsking('remove')}>
              Remove…
            </Button>
          )}
        </div>
      </Card>
      <ConfirmDialog
        open={asking === 'replace'}
        onOpenChange={() => setAsking(undefined)}
        title="Make a new address?"
        action="Make a new one"
        busy={make.isPending}
        onConfirm={begin}
      >
        <p>An address that was made before stops working at once. Put the new one into Coolify.</p>
        {make.isError && <ErrorNote error={make.error} />}
      </ConfirmDialog>
      {asking === 'remove' && <RemoveHook of={of} onClose={() => setAsking(undefined)} />}
      {made !== undefined && (
        <ShownOnce
          title="The webhook’s address"
          secret={made}
          label="The webhook’s address"
          onClose={() => setMade(undefined)}
        >
          <p>
            In Coolify, under Notifications, Webhook: put it in, switch it on, and tick the deployment events.
            Whoever has it can only make us look sooner. Nothing can be read or started with it.
          </p>
        </ShownOnce>
      )}
    </Section>
  );
}

function RemoveHook({ of, onClose }: { of: HookOf; onClose: () => void }) {
  const remove = useRemoveHook(of);
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="Remove the webhook’s address?"
      action="Remove"
      busy={remove.isPending}
      onConfirm={() =>
        remove.mutate(undefined, {
          onSuccess: () => {
            toast.ok('The webhook’s address is removed');
            onClose();
          },
        })
      }
    >
      <p>It stops working at once. Deployments are watched all the same.</p>
      {remove.isError && <ErrorNote error={remove.error} />}
    </ConfirmDialog>
  );
}
